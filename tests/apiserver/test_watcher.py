"""The operator's process against a real API server; the tests play Argo, the nodes and the kubelet."""

import datetime
import json
import re
import signal
import time
from pathlib import Path

import pytest

from kaito_hera import api, names, rival
from kaito_hera import cluster as clusters
from tests import making
from tests.apiserver.conftest import until
from tests.apiserver.rolled import roll_out

OPERATOR = "kaito-hera"


def workflows(cluster, namespace):
    return cluster.items(clusters.WORKFLOW, OPERATOR, labels=f"{names.NAMESPACE}={namespace}")


def workspace(cluster, namespace):
    return cluster.get(clusters.WORKSPACE, "w", namespace)


def conditions(cluster, namespace):
    found = workspace(cluster, namespace)
    return {c["type"]: c for c in (found or {}).get("status", {}).get("conditions", [])}


def play(cluster, flow, phase, *, ago=0, **steps):
    """Write what Argo would write, so many seconds ago."""
    nodes = {}
    for name, outputs in steps.items():
        display = name.replace("_", "-")
        times = {"startedAt": "2026-01-01T00:00:00Z", "finishedAt": "2026-01-01T00:00:01Z"}
        parameters = [{"name": key, "value": value} for key, value in outputs.items() if key != "fails"]
        node = {"id": display, "name": display, "displayName": display, "type": "Pod", **times}
        node |= {"phase": "Failed", "message": outputs["fails"]} if "fails" in outputs else {"phase": "Succeeded"}
        nodes[display] = {**node, "outputs": {"parameters": parameters}}
    status = {"phase": phase, "nodes": nodes}
    if phase != "Running":
        ended = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=ago)
        status["finishedAt"] = ended.strftime("%Y-%m-%dT%H:%M:%SZ")
    cluster.patch(clusters.WORKFLOW, flow["metadata"]["name"], OPERATOR, {"status": status})


def first_workflow(cluster, namespace):
    return until(lambda: workflows(cluster, namespace), what="a Workflow")[0]


def test_a_workspace_gets_a_finalizer_a_recorded_name_and_a_workflow_of_that_name(cluster, apply, namespace, watcher):
    watcher()
    apply(making.inference())
    flow = first_workflow(cluster, namespace)
    stored = workspace(cluster, namespace)
    assert api.FINALIZER in stored["metadata"]["finalizers"]
    assert stored["status"]["workflow"]["name"] == flow["metadata"]["name"]
    assert flow["metadata"]["labels"][names.WORKFLOW] == "serve"
    assert not flow["metadata"].get("ownerReferences"), "an owner in another namespace would have it collected"


def test_the_whole_way_of_a_workspace(cluster, apply, namespace, watcher, settings):
    watcher()
    stored = apply(making.inference())
    flow = first_workflow(cluster, namespace)
    play(cluster, flow, "Running", preflight={})
    until(
        lambda: conditions(cluster, namespace).get("PreflightSucceeded", {}).get("status") == "True", what="preflight"
    )
    labels = {names.WORKSPACE: "w", names.NAMESPACE: namespace, names.UID: stored["metadata"]["uid"]}
    node = cluster.create(clusters.NODE, {"metadata": {"name": f"node-{namespace}", "labels": labels}})
    ready = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    cluster.patch(clusters.NODE, node["metadata"]["name"], None, ready, subresource="status")
    roll_out(cluster, stored, settings)
    play(cluster, flow, "Succeeded", preflight={}, provision_nodes={"candidate": "x"}, await_nodes={}, roll_out={})
    until(lambda: conditions(cluster, namespace)["WorkspaceReady"]["status"] == "True", what="a ready Workspace")
    assert workspace(cluster, namespace)["status"]["workerNodes"] == [node["metadata"]["name"]]
    assert workspace(cluster, namespace)["status"]["state"] == "Ready"

    _an_edit_leaves_it_ready(cluster, namespace)
    cluster.patch(clusters.DEPLOYMENT, "w", namespace, {"status": {"readyReplicas": 0}}, subresource="status")
    until(lambda: conditions(cluster, namespace)["InferenceReady"]["status"] == "False", what="a server that is down")

    cluster.delete(clusters.WORKSPACE, "w", namespace)
    release = until(lambda: _of_kind(cluster, namespace, "release"), what="a release")
    play(cluster, release, "Succeeded", release={})
    until(lambda: workspace(cluster, namespace) is None, what="a Workspace that is gone")
    until(lambda: not workflows(cluster, namespace), what="no Workflow left")


def _an_edit_leaves_it_ready(cluster, namespace):
    adapters = [{"source": {"name": "a", "image": "team.azurecr.io/a:1"}, "strength": "0.5"}]
    cluster.patch(clusters.WORKSPACE, "w", namespace, {"inference": {"adapters": adapters}})
    flow = until(lambda: _later(cluster, namespace, attempt=2), what="an attempt for the edit")
    for steps in ({}, {"preflight": {}}):
        play(cluster, flow, "Running", **steps)
        passed = 2 if steps else 1
        until(lambda n=passed: _generation(cluster, namespace, "PreflightSucceeded") == n, what="a look at the steps")
        status = workspace(cluster, namespace)["status"]
        assert (status["state"], status["serving"]["adapters"]) == ("Ready", [])
        ready = {name: conditions(cluster, namespace)[name] for name in ("InferenceReady", "WorkspaceReady", "Ready")}
        assert {(c["status"], c["observedGeneration"]) for c in ready.values()} == {("True", 1)}
    play(cluster, flow, "Succeeded", preflight={}, roll_out={})
    until(lambda: _generation(cluster, namespace, "WorkspaceReady") == 2, what="the edit rolled out")
    assert [a["name"] for a in workspace(cluster, namespace)["status"]["serving"]["adapters"]] == ["a"]


def _later(cluster, namespace, *, attempt):
    found = workflows(cluster, namespace)
    return next((w for w in found if w["metadata"]["labels"][names.ATTEMPT] == str(attempt)), None)


def _generation(cluster, namespace, name):
    return conditions(cluster, namespace)[name]["observedGeneration"]


def _of_kind(cluster, namespace, kind):
    return next((w for w in workflows(cluster, namespace) if w["metadata"]["labels"][names.WORKFLOW] == kind), None)


def test_killed_between_recording_and_creating_it_creates_under_the_recorded_name(cluster, apply, namespace, watcher):
    stored = apply(making.inference())
    cluster.patch(clusters.WORKSPACE, "w", namespace, {"metadata": {"finalizers": [api.FINALIZER]}})
    name = f"{namespace}-w-{stored['metadata']['uid'][:5]}-g1-a1"
    recorded = {"name": name, "kind": "serve", "attempt": 1, "generation": 1, "phase": ""}
    cluster.patch(clusters.WORKSPACE, "w", namespace, {"status": {"workflow": recorded}}, subresource="status")
    watcher()
    assert first_workflow(cluster, namespace)["metadata"]["name"] == name
    time.sleep(1)
    assert len(workflows(cluster, namespace)) == 1


def test_killed_at_any_time_the_next_one_goes_on(cluster, apply, namespace, watcher):
    apply(making.inference())
    for pause in (0.0, 0.2, 1.0, 1.5, 2.0):
        process = watcher()
        time.sleep(pause)
        process.send_signal(signal.SIGKILL)
        process.wait()
    watcher()
    flow = first_workflow(cluster, namespace)
    play(cluster, flow, "Running", preflight={})
    until(
        lambda: conditions(cluster, namespace).get("PreflightSucceeded", {}).get("status") == "True", what="preflight"
    )
    assert len(workflows(cluster, namespace)) == 1


def test_of_two_one_leads_and_the_other_takes_over(cluster, apply, namespace, watcher):
    first = watcher()
    holder = until(lambda: _holder(cluster), what="a leader")
    until_it_waits(watcher(leads=False))
    time.sleep(3)
    assert _holder(cluster) == holder
    first.kill()
    first.wait()
    short = {"spec": {"leaseDurationSeconds": 1}}  # that a lead runs out is the Lease's own test
    cluster.patch(clusters.LEASE, "kaito-hera", OPERATOR, short)
    apply(making.inference())
    until(lambda: workflows(cluster, namespace), what="a Workflow by the second")
    assert _holder(cluster) != holder


def test_told_to_end_it_ends_at_once_and_the_next_one_leads_at_once(cluster, watcher):
    first = watcher()
    holder = until(lambda: _holder(cluster), what="a leader")
    until_it_waits(watcher(leads=False))
    first.send_signal(signal.SIGTERM)
    assert first.wait(timeout=5) == 0
    until(lambda: _holder(cluster) not in {"", holder}, what="the second in the lead", seconds=8)


def test_one_that_waits_for_the_lead_ends_when_told_and_takes_nothing_away(cluster, watcher):
    watcher()
    holder = until(lambda: _holder(cluster), what="a leader")
    second = watcher(leads=False)
    until_it_waits(second)
    second.send_signal(signal.SIGTERM)
    assert second.wait(timeout=5) == 0
    assert _holder(cluster) == holder


def until_it_waits(process):
    """Past its imports, it handles SIGTERM."""
    seen = Path(f"/proc/{process.pid}/status")
    bit = 1 << (signal.SIGTERM - 1)
    until(lambda: int(re.search(r"SigCgt:\s*(\w+)", seen.read_text())[1], 16) & bit, what="a process that waits")


def _holder(cluster):
    found = cluster.get(clusters.LEASE, "kaito-hera", OPERATOR)
    return (found or {"spec": {}})["spec"].get("holderIdentity")


def test_a_reason_reaches_the_user(cluster, apply, namespace, watcher):
    watcher()
    apply(making.inference())
    message = making.failed_message("UnknownPreset", "inference.preset.name: 'x' is not known", retryable=False)
    play(cluster, first_workflow(cluster, namespace), "Failed", preflight={"fails": message})
    until(lambda: conditions(cluster, namespace).get("Stalled", {}).get("status") == "True", what="a stalled Workspace")
    assert conditions(cluster, namespace)["PreflightSucceeded"]["reason"] == "UnknownPreset"
    edit = {"resource": {"count": 2}}
    cluster.patch(clusters.WORKSPACE, "w", namespace, edit)
    until(
        lambda: any("-g2-a2" in w["metadata"]["name"] for w in workflows(cluster, namespace)), what="a second attempt"
    )


def test_a_deletion_without_argo_releases_by_a_plain_job(cluster, apply, namespace, watcher):
    watcher()
    apply(making.inference())
    first_workflow(cluster, namespace)
    cluster.delete(clusters.WORKSPACE, "w", namespace)
    labels = f"{names.NAMESPACE}={namespace},{names.ROLE}=release"
    job = until(lambda: cluster.items(clusters.JOB, OPERATOR, labels=labels), what="a release Job", seconds=60)[0]
    pod = job["spec"]["template"]["spec"]
    assert pod["containers"][0]["command"] == ["python3", "-m", "workflows", "release"]
    assert pod["serviceAccountName"] == "kaito-hera-steps"
    asked = {e["name"]: e.get("value") for e in pod["containers"][0]["env"]}
    assert json.loads(asked["WORKSPACE"])["metadata"]["name"] == "w"
    done = {"status": {"succeeded": 1}}
    cluster.patch(clusters.JOB, job["metadata"]["name"], OPERATOR, done, subresource="status")
    until(lambda: workspace(cluster, namespace) is None, what="a Workspace that is gone")
    until(lambda: not workflows(cluster, namespace), what="no Workflow left")


WEBHOOK = clusters.Kind(
    "ValidatingWebhookConfiguration",
    "validatingwebhookconfigurations",
    group="admissionregistration.k8s.io",
    namespaced=False,
)


def _kaito(namespace, **spec):
    """KAITO's controller, as its Helm chart writes it."""
    labels = {"app.kubernetes.io/name": "workspace", "app.kubernetes.io/instance": "kaito-workspace"}
    variables = [{"name": "PRESET_REGISTRY_NAME", "value": "mcr.microsoft.com/aks/kaito"}]
    containers = [{"name": "workspace", "image": "mcr.microsoft.com/aks/kaito/workspace:0.3.0", "env": variables}]
    template = {"metadata": {"labels": labels}, "spec": {"containers": containers}}
    metadata = {"name": "kaito-workspace", "namespace": namespace, "labels": labels}
    return {"metadata": metadata, "spec": {"selector": {"matchLabels": labels}, "template": template, **spec}}


@pytest.fixture
def logged(tmp_path):
    """Waits until a watcher has said it."""

    def wait(words):
        until(lambda: any(words in log.read_text() for log in tmp_path.glob("watcher-*.log")), what=words)

    return wait


@pytest.mark.parametrize("sign", ["webhook", "controller"])
def test_beside_kaito_s_own_controller_ours_acts_on_nothing(cluster, apply, namespace, watcher, logged, sign):
    if sign == "webhook":
        kind, obj = WEBHOOK, {"metadata": {"name": "validation.workspace.kaito.sh"}}
    else:
        kind, obj = clusters.DEPLOYMENT, _kaito(namespace)
    cluster.create(kind, obj)
    try:
        watcher()
        logged("acting on nothing")
        apply(making.inference())
        time.sleep(1)
        assert workspace(cluster, namespace)["metadata"].get("finalizers") is None
        assert not workflows(cluster, namespace)
    finally:
        cluster.delete(kind, obj["metadata"]["name"], namespace)


def test_neither_a_stopped_kaito_nor_something_of_its_name_is_in_the_way(cluster, namespace):
    cluster.create(clusters.DEPLOYMENT, _kaito(namespace, replicas=0))
    other = _kaito(namespace)
    other["metadata"]["name"] = "someone-s-workspace"
    other["spec"]["template"]["spec"]["containers"][0]["env"] = []
    cluster.create(clusters.DEPLOYMENT, other)
    assert not rival.found(cluster)


def test_when_kaito_comes_later_no_hand_acts_any_more(cluster, apply, namespace, watcher, logged):
    watcher()
    logged("watching 0 Workspaces")
    time.sleep(1)  # all hands wait for work
    cluster.create(clusters.DEPLOYMENT, _kaito(namespace))
    try:
        logged("acting on nothing")
        apply(making.inference())
        time.sleep(1)
        assert workspace(cluster, namespace)["metadata"].get("finalizers") is None
    finally:
        cluster.delete(clusters.DEPLOYMENT, "kaito-workspace", namespace)


def test_at_rest_nothing_is_written_but_the_lease(cluster, apply, namespace, watcher):
    watcher()
    apply(making.inference())
    flow = first_workflow(cluster, namespace)
    play(cluster, flow, "Running", preflight={})
    until(
        lambda: conditions(cluster, namespace).get("PreflightSucceeded", {}).get("status") == "True", what="preflight"
    )
    time.sleep(1)
    before = _versions(cluster, namespace)
    time.sleep(3)
    assert _versions(cluster, namespace) == before


def _versions(cluster, namespace):
    found = [workspace(cluster, namespace), *workflows(cluster, namespace)]
    return [obj["metadata"]["resourceVersion"] for obj in found]
