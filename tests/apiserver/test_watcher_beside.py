"""What stands beside a server is deleted by somebody; the tests play Argo, the steps and the kubelet."""

import pytest

from kaito_hera import cluster as clusters
from kaito_hera import names
from tests import making
from tests.apiserver.conftest import until
from tests.apiserver.rolled import roll_out
from tests.apiserver.test_watcher import conditions, first_workflow, play, workflows, workspace

ACCOUNT = "--as=system:serviceaccount:kaito-hera:kaito-hera-operator"
CALM = 55  # seconds that have passed of the minute after an attempt in which none follows
GONE = {
    clusters.SERVICE: "w",
    clusters.CONFIG_MAP: "w-serving",
    clusters.NETWORK_POLICY: "w-serving",
}


@pytest.fixture
def serving(cluster, apply, namespace, watcher, settings):
    """A Workspace whose server answers, and what its step rolls out."""
    watcher()
    stored = apply(making.inference())
    flow = first_workflow(cluster, namespace)
    labels = {names.WORKSPACE: "w", names.NAMESPACE: namespace, names.UID: stored["metadata"]["uid"]}
    node = cluster.create(clusters.NODE, {"metadata": {"name": f"node-{namespace}", "labels": labels}})
    ready = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    cluster.patch(clusters.NODE, node["metadata"]["name"], None, ready, subresource="status")
    roll_out(cluster, stored, settings)
    done = {"preflight": {}, "provision_nodes": {"candidate": "x"}, "await_nodes": {}, "roll_out": {}}
    play(cluster, flow, "Succeeded", ago=CALM, **done)
    until(lambda: _settled(cluster, namespace, attempt=1), what="a ready Workspace")
    return stored


def _settled(cluster, namespace, *, attempt):
    found = conditions(cluster, namespace)
    states = [found.get(name, {}).get("status") for name in ("WorkspaceReady", "Reconciling")]
    return states == ["True", "False"] and workspace(cluster, namespace)["status"]["workflow"]["attempt"] == attempt


def _attempt(cluster, namespace, number):
    found = workflows(cluster, namespace)
    return next((w for w in found if w["metadata"]["labels"][names.ATTEMPT] == str(number)), None)


def test_what_somebody_deletes_is_rolled_out_again_while_the_server_answers(cluster, namespace, serving, settings):
    for attempt, (kind, name) in enumerate(GONE.items(), start=2):
        assert cluster.delete(kind, name, namespace)
        flow = until(lambda n=attempt: _attempt(cluster, namespace, n), what=f"an attempt for the {kind.name}")
        steps = {t["name"] for t in flow["spec"]["templates"]}
        assert "roll-out" in steps
        assert "provision-nodes" not in steps
        assert conditions(cluster, namespace)["WorkspaceReady"]["status"] == "True"
        roll_out(cluster, serving, settings)
        assert cluster.get(kind, name, namespace)
        play(cluster, flow, "Succeeded", ago=CALM, preflight={}, roll_out={})
        until(lambda n=attempt: _settled(cluster, namespace, attempt=n), what="rest")


@pytest.mark.parametrize(
    ("resource", "may"), [("services", "yes"), ("configmaps", "yes"), ("networkpolicies", "yes"), ("secrets", "no")]
)
def test_the_operator_may_watch_all_of_it_but_secrets(kubectl, resource, may):
    for verb in ("list", "watch"):
        said = kubectl("auth", "can-i", verb, resource, "--all-namespaces", ACCOUNT, check=False)
        assert said.stdout.strip() == may
