import json

import pytest
import yaml

from kaito_hera import cluster as clusters
from tests import making
from tests.apiserver import asking
from tests.apiserver.conftest import ROOT
from workflows.outlook import slips

SEEDS = sorted(file for file in (ROOT / "examples").glob("*.yaml") if not file.name.endswith(".workflow.yaml"))


@pytest.mark.parametrize("manifest", SEEDS, ids=lambda file: file.stem)
def test_the_users_manifests_are_taken_to_the_letter(kubectl, namespace, manifest):
    kubectl("apply", "-n", namespace, "-f", manifest)
    stored = json.loads(kubectl("get", "-n", namespace, "workspace", "-o", "json").stdout)["items"][0]
    [asked] = [each for each in yaml.safe_load_all(manifest.read_text()) if each["kind"] == "Workspace"]
    for part in ("inference", "tuning"):
        if part in asked:
            assert _without_defaults(stored[part]) == asked[part]


def _without_defaults(part):
    adapters = [{**adapter} for adapter in part.get("adapters", [])]
    return {**part, "adapters": adapters} if adapters else part


@pytest.mark.parametrize(
    ("version", "header"),
    [
        ("v1alpha1", ["NAME", "INSTANCE", "RESOURCEREADY", "INFERENCEREADY", "WORKSPACEREADY", "AGE"]),
        (
            "v1beta1",
            [
                *("NAME", "INSTANCE", "RESOURCEREADY", "INFERENCEREADY", "JOBSTARTED"),
                *("WORKSPACESUCCEEDED", "WORKSPACEREADY", "STATE", "AGE"),
            ],
        ),
    ],
)
def test_kubectl_prints_the_columns_that_users_know(kubectl, namespace, version, header):
    kubectl("apply", "-n", namespace, "-f", SEEDS[0])
    table = kubectl("get", "-n", namespace, f"workspaces.{version}.kaito.sh").stdout
    assert table.splitlines()[0].split() == header
    wide = kubectl("get", "-n", namespace, "-o", "wide", f"workspaces.{version}.kaito.sh").stdout.splitlines()[0]
    assert {"WORKSPACEREADY", "JOBSTARTED", "WORKSPACESUCCEEDED", "STATE", "MESSAGE"} <= set(wide.split())
    assert (
        kubectl("get", "-n", namespace, "wk", "-o", "name").stdout
        == kubectl("get", "-n", namespace, "wks", "-o", "name").stdout
    )


def test_the_size_that_was_had_is_printed_where_several_were_asked_for(cluster, kubectl, apply, namespace):
    workspace = making.inference()
    workspace["resource"]["instanceTypes"] = [workspace["resource"].pop("instanceType"), "Standard_NC6s_v3"]
    apply(workspace)
    told = {"status": {"instanceType": "Standard_NC6s_v3", "state": "Pending"}}
    cluster.patch(clusters.WORKSPACE, "w", namespace, told, subresource="status")
    row = kubectl("get", "-n", namespace, "workspace", "w", "--no-headers").stdout.split()
    assert row[:2] == ["w", "Standard_NC6s_v3"]


@pytest.mark.parametrize(("generation", "met"), [(1, False), (2, True)])
def test_kubectl_waits_for_the_generation_that_was_applied(cluster, kubectl, apply, namespace, generation, met):
    apply(making.inference())
    cluster.patch(clusters.WORKSPACE, "w", namespace, {"resource": {"count": 2}})
    condition = {"type": "WorkspaceReady", "status": "True", "reason": "r", "message": ""}
    condition |= {"lastTransitionTime": making.ago(9), "observedGeneration": generation}
    told = {"status": {"observedGeneration": 2, "conditions": [condition]}}
    cluster.patch(clusters.WORKSPACE, "w", namespace, told, subresource="status")
    line = ("wait", "-n", namespace, "workspace/w", "--for=condition=WorkspaceReady", "--timeout=1s")
    assert (kubectl(*line, check=False).returncode == 0) == met


def test_explain_prints_the_models_own_texts(kubectl):
    text = kubectl("explain", "workspace.tuning.method").stdout
    assert "qlora beside 4-bit ones" in " ".join(text.split())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param({"inference": None}, ["one of them at least"], id="neither"),
        pytest.param(
            {"tuning": {**making.tuning()["tuning"], "preset": {"name": "phi-4"}}},
            ["inference.preset.name: must be tuning.preset.name"],
            id="two-models",
        ),
        pytest.param({"resource": {"instanceTypo": "x", "labelSelector": {}}}, ["instanceTypo"], id="slip"),
        pytest.param({"resource": {"instanceType": "x"}}, ["resource.labelSelector"], id="no-selector"),
        pytest.param(
            {
                "inference": {
                    **making.inference()["inference"],
                    "adapters": [{"source": {"name": "a", "image": "b"}, "strength": "1.5"}],
                }
            },
            ["inference.adapters[0].strength", "1.5"],
            id="strength-above-one",
        ),
        pytest.param(
            {
                "inference": {
                    **making.inference()["inference"],
                    "adapters": [{"source": {"name": name, "image": "b"}} for name in "aba"],
                }
            },
            ["inference.adapters", "a source.name of its own"],
            id="two-adapters-of-a-name",
        ),
        pytest.param(
            {
                "inference": {
                    **making.inference()["inference"],
                    "adapters": [
                        {"source": {"name": "a", "image": "b", "imagePullSecrets": ["../../victim/secrets/x"]}},
                    ],
                }
            },
            ["inference.adapters[0].source.imagePullSecrets[0]", "../../victim/secrets/x"],
            id="path-for-a-name",
        ),
        pytest.param(
            {
                "inference": None,
                "tuning": {
                    **making.tuning()["tuning"],
                    "checkpoint": {"destination": "None", "intervalSeconds": 60},
                },
            },
            ["tuning.checkpoint", "intervalSeconds says nothing where destination is None"],
            id="interval-of-no-checkpoint",
        ),
        pytest.param(
            {"metadata": {"name": "1-begins-with-a-digit"}}, ["metadata.name", "a Service carries this name"], id="name"
        ),
    ],
)
def test_what_has_no_meaning_is_refused_at_apply(kubectl, namespace, change, words):
    workspace = {**making.inference(), "metadata": {"name": "w"}, **change}
    manifest = yaml.safe_dump({key: value for key, value in workspace.items() if value is not None})
    refused = kubectl("apply", "-n", namespace, "-f", "-", stdin=manifest, check=False)
    assert refused.returncode != 0
    for word in words:
        assert word in refused.stderr


def served(**inference):
    return {"inference": {**making.inference()["inference"], **inference}}


def adapted(name="a", image="b", strength="1"):
    return served(adapters=[{"source": {"name": name, "image": image}, "strength": strength}])


@pytest.mark.parametrize(
    ("change", "field", "value", "remedy"),
    [
        (adapted(strength="2"), "inference.adapters[0].strength", "2", 'write a number from "0" to "1", in quotes'),
        (adapted(name="A b"), "inference.adapters[0].source.name", "A b", "write letters, digits, - and . alone"),
        (adapted(image="<YOUR IMAGE URL>"), "inference.adapters[0].source.image", "<YOUR IMAGE URL>", "write HOST/"),
        (served(preset={"name": "phi-4 "}), "inference.preset.name", "phi-4 ", "write a preset's name"),
        (served(preset={"name": "https://a.b/c"}), "inference.preset.name", "https://a.b/c", "write a preset's name"),
        (
            {"inference": None, "tuning": {**making.tuning()["tuning"], "method": "full"}},
            "tuning.method",
            "full",
            "wri",
        ),
    ],
)
def test_a_slip_of_the_pen_is_told_in_words(cluster, namespace, change, field, value, remedy):
    said = asking.create(cluster, {**making.inference(), "metadata": {"name": "w"}, **change}, namespace)
    assert said.refused
    assert f'{field}: Invalid value: "string": "{value}": {remedy}' in said.message
    assert "regexp" not in said.message
    made = {key: part for key, part in {**making.inference(), **change}.items() if part is not None}
    _, [found] = slips.parse(made)
    assert found.field == field
    assert repr(value) in found.problem
    assert found.remedy.startswith(remedy)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"instanceType": "Standard_NC48ads_A100_v4"}, "instanceType"),
        ({"instanceType": None}, "instanceType"),
        ({"labelSelector": {"matchLabels": {"app": "other"}}}, "labelSelector"),
    ],
)
def test_what_nodes_were_made_by_stays(cluster, apply, namespace, change, field):
    apply(making.inference())
    with pytest.raises(clusters.InvalidObjectError, match=f"resource.*{field} cannot be changed.*delete the Workspace"):
        cluster.patch(clusters.WORKSPACE, "w", namespace, {"resource": change})


def test_everything_else_of_the_nodes_may_change(cluster, apply, namespace):
    unsized = making.inference()
    del unsized["resource"]["instanceType"]
    apply(unsized)
    change = {"instanceType": "Standard_NC24ads_A100_v4", "count": 2, "preferredNodes": ["n"]}
    stored = cluster.patch(clusters.WORKSPACE, "w", namespace, {"resource": change})
    assert stored["resource"]["instanceType"] == "Standard_NC24ads_A100_v4"


def test_users_cannot_write_status_by_an_apply(kubectl, namespace):
    workspace = {**making.inference(), "metadata": {"name": "w"}, "status": {"state": "Ready"}}
    kubectl("apply", "-n", namespace, "-f", "-", stdin=yaml.safe_dump(workspace))
    assert "status" not in json.loads(kubectl("get", "-n", namespace, "wk", "w", "-o", "json").stdout)


def test_addresses_are_refused_before_they_are_too_long_for_a_workflow(kubectl, namespace):
    workspace = making.tuning(namespace=namespace)
    workspace["metadata"] = {"name": "w", "namespace": namespace}
    workspace["tuning"]["input"]["urls"] = [f"https://example.com/{'x' * 1900}/{number}" for number in range(30)]
    kubectl("apply", "-f", "-", stdin=json.dumps(workspace))
    workspace["tuning"]["input"]["urls"] += workspace["tuning"]["input"]["urls"][:2]
    refused = kubectl("apply", "-f", "-", stdin=json.dumps(workspace), check=False)
    assert "tuning.input" in refused.stderr
    assert "put the data into fewer files" in refused.stderr
