"""`kaito-hera plan --live`: of a Workspace that stands in a cluster, by whoever may read it."""

import dataclasses
import json
import uuid

import pytest
import yaml

from kaito_hera import cluster as clusters
from kaito_hera import intent, names
from kaito_hera.api import Workspace
from tests import making
from tests.apiserver.rolled import roll_out
from workflows import __main__ as command
from workflows.outlook import Outlooks
from workflows.outlook.documents import UnreadableError

TRAINING = "training_config: {TrainingArguments: {per_device_train_batch_size: 5, max_length: 512}}"


@pytest.fixture
def planned(cluster, namespace, capsys):
    """What the command says of the Workspace `w`, and its exit code."""

    def plan(*more):
        line = ["plan", "--live", "w", "-n", namespace, "-o", "json", *more]
        parsed = command._parser().parse_args(line)
        with pytest.raises(SystemExit) as end:
            parsed.run(parsed)
        said = capsys.readouterr()
        [only] = Outlooks.model_validate_json(said.out).plans
        return only, end.value.code, said.err

    return plan


def test_a_workspace_that_nobody_knows_is_a_usage_error(namespace, planned):
    with pytest.raises(UnreadableError, match=f"{namespace}/w is not there"):
        planned()


def test_show_says_where_the_workspaces_are_listed(cluster, namespace):
    asked = command._parser().parse_args(["show", "w", "-n", namespace])
    with pytest.raises(UnreadableError, match=f"{namespace}/w is not there; `kubectl get workspaces -A` lists them"):
        asked.run(asked)


def test_its_config_map_is_read_beside_it(cluster, namespace, apply, planned):
    metadata = {"name": "mine", "namespace": namespace}
    cluster.create(clusters.CONFIG_MAP, {"metadata": metadata, "data": {"training_config.yaml": TRAINING}})
    workspace = making.tuning()
    workspace["tuning"]["config"] = "mine"
    apply(workspace)
    told, code, _ = planned()
    assert code == 0
    assert [step.name for step in told.steps] == ["preflight", "provision-nodes", "await-nodes", "train", "roll-out"]
    assert told.memory[0].basis == "qlora, rank 8, 5 rows of 512 tokens"
    assert told.memory[1].use == "serve"


def test_its_inference_config_is_read_too(cluster, namespace, apply, planned):
    metadata = {"name": "mine", "namespace": namespace}
    text = "vllm: {max-model-len: 3000}"
    cluster.create(clusters.CONFIG_MAP, {"metadata": metadata, "data": {"inference_config.yaml": text}})
    workspace = making.inference()
    workspace["inference"]["config"] = "mine"
    apply(workspace)
    told, code, _ = planned()
    assert code == 0
    assert told.memory[0].basis == "cache for 3,000 tokens"


def test_a_size_that_is_fixed_by_now_is_changed_by_another_workspace(apply, planned):
    apply(making.edited(making.inference(), instanceType="Standard_NC6s_v3"))
    told, code, _ = planned()
    assert code == 10
    assert "delete the Workspace and apply it anew" in told.errors[0].remedy


def test_what_is_reached_already_is_not_done_again(cluster, namespace, apply, planned, settings, tmp_path):
    (tmp_path / "nodeProvider").write_text("aks")
    stored = apply(making.inference())
    workspace = Workspace.parse(stored)
    reached, labels, node = intent.of(workspace), names.labels(workspace), f"node-{uuid.uuid4().hex[:8]}"
    status = {"workerNodes": [node], "satisfied": dataclasses.asdict(reached)}
    cluster.patch(clusters.WORKSPACE, "w", namespace, {"status": status}, subresource="status")
    assert [step.name for step in planned("--settings", str(tmp_path))[0].steps] == [
        "preflight",
        "provision-nodes",
        "await-nodes",
        "roll-out",
    ]
    cluster.create(clusters.NODE, {"metadata": {"name": node, "labels": labels}})
    ready = {"conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady", "message": ""}]}
    cluster.patch(clusters.NODE, node, None, {"status": ready}, subresource="status")
    assert [step.name for step in planned("--settings", str(tmp_path))[0].steps] == ["preflight", "roll-out"]
    roll_out(cluster, stored, settings)
    assert planned("--settings", str(tmp_path))[0].steps == ()
    cluster.delete(clusters.SERVICE, "w", namespace)
    assert [step.name for step in planned("--settings", str(tmp_path))[0].steps] == ["preflight", "roll-out"]
    cluster.delete(clusters.NODE, node)


def test_whoever_may_read_workspaces_alone_gets_an_answer_too(
    cluster, namespace, kubectl, kubeconfig, apply, planned, tmp_path, monkeypatch
):
    apply(making.tuning())
    kubectl("-n", namespace, "create", "serviceaccount", "reader")
    kubectl("-n", namespace, "create", "role", "reader", "--verb=get", "--resource=workspaces.kaito.sh")
    kubectl("-n", namespace, "create", "rolebinding", "r", "--role=reader", f"--serviceaccount={namespace}:reader")
    token = kubectl("-n", namespace, "create", "token", "reader").stdout
    asking = yaml.safe_load(kubeconfig.read_text())
    for user in asking["users"]:
        user["user"] = {"token": token}
    (tmp_path / "reader").write_text(json.dumps(asking))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "reader"))
    told, code, said = planned()
    assert code == 0
    assert [step.name for step in told.steps][-2:] == ["train", "roll-out"]
    assert "you may not read ConfigMap kaito-hera/kaito-hera-settings" in said
