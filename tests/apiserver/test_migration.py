"""Workspaces as KAITO leaves them, on a real API server: what becomes of each object. A test plays gpu-provisioner."""

import concurrent.futures
import dataclasses
import time

import pytest

from kaito_hera import api, checks, errors, inherited, names, nodes, rollout, status
from kaito_hera import cluster as clusters
from kaito_hera.api import Workspace
from kaito_hera.nodes import claims
from kaito_hera.nodes.byo import ByoProvider
from kaito_hera.run import Run
from tests import making
from tests.apiserver.conftest import connected, remove, until
from tests.apiserver.kaito import (
    A100,
    BETA,
    CLAIM,
    CRD,
    HEADLESS,
    MACHINE,
    POOL,
    answers,
    crd,
    kind_of,
    order,
    want_of,
)
from tests.cluster import testing
from workflows import asks, steps

OURS = "workspaces.kaito.sh"


@pytest.fixture
def inheriting(cluster, cloud, namespace):
    return claims.Inheriting(cloud, cluster, (namespace, "w"), patience=2.0)


@pytest.fixture
def without_ours(spare):
    """A cluster without our CRD; the Workspace `w` of its default namespace goes with the test."""
    cluster = connected(spare)
    cluster.delete(CRD, OURS)
    until(lambda: cluster.get(CRD, OURS) is None, what="no Workspaces any more")
    yield cluster
    if left := _get(cluster):
        remove(cluster, clusters.WORKSPACE, left)


@pytest.mark.parametrize("versions", [["v1alpha1"], ["v1beta1", "v1alpha1"]], ids=["v0.3", "v0.12"])
def test_installed_over_kaito_s_crd_every_workspace_is_still_there(without_ours, spare, versions):
    cluster = without_ours
    theirs = crd(clusters.WORKSPACE, *versions)
    theirs["spec"]["scope"] = "Namespaced"
    for version in theirs["spec"]["versions"]:
        version["subresources"] = {"status": {}}
    cluster.create(CRD, theirs)
    kind = dataclasses.replace(clusters.WORKSPACE, version=versions[0])
    until(lambda: answers(cluster, kind), what="KAITO's Workspaces")
    metadata = {"name": "w", "namespace": "default", "finalizers": [api.FINALIZER]}
    made = cluster.create(kind, {**making.inference(), **kind_of(kind), "metadata": metadata})
    told = {"workerNodes": ["n1"], "performance": {"metrics": {"x": 1}}}
    cluster.patch(kind, "w", "default", {"status": told}, subresource="status")
    testing.install(spare)
    found = until(lambda: answers(cluster, clusters.WORKSPACE) and _get(cluster), what="our Workspaces")
    assert found["metadata"]["uid"] == made["metadata"]["uid"]
    assert found["metadata"]["finalizers"] == [api.FINALIZER]
    assert status.Status.of(found).worker_nodes == ("n1",)
    written = {"status": {"nodes": {"inherited": True}}}
    stored = cluster.patch(clusters.WORKSPACE, "w", "default", written, subresource="status")
    assert stored["status"]["nodes"]["inherited"] is True


def _get(cluster):
    return cluster.get(clusters.WORKSPACE, "w", "default")


@pytest.mark.parametrize("kind", [CLAIM, BETA, MACHINE], ids=lambda kind: f"{kind.name}-{kind.version}")
def test_a_node_that_kaito_made_is_ours_from_now_on_and_none_is_bought(
    karpenter, cluster, stored, settings, kaito, kind
):
    """With the provider of the settings: it would need Azure to buy anything."""
    kaito.claim("ws1", kind=kind)
    asked = {"workspace": Workspace.parse(stored), "settings": settings, "attempt": 1}
    provisioned = steps.provision_nodes(steps.Ordered(**asked))
    assert provisioned.candidate == f"{A100}/on-demand"
    steady = settings.model_copy(update={"node_steady_seconds": 0})
    usable = steps.await_nodes(steps.Placed(**{**asked, "settings": steady}, candidate=provisioned.candidate))
    [node] = usable.nodes
    labels = cluster.get(clusters.NODE, node)["metadata"]["labels"]
    assert labels[names.UID] == stored["metadata"]["uid"]
    placed = Run.open(Workspace.parse(stored), settings).placement()
    assert placed.labels.items() <= labels.items()


def test_karpenter_s_nodes_of_a_nodepool_are_ours_too(karpenter, cluster, stored, kaito, inheriting, cloud):
    theirs = {"karpenter.kaito.sh/workspace-name": "w", "karpenter.kaito.sh/workspace-namespace": kaito.namespace}
    cluster.create(POOL, {**kind_of(POOL), "metadata": {"name": f"{kaito.namespace}-w", "labels": theirs}})
    kaito.claim("c1", **theirs | {"kaito.sh/workspace": "", "kaito.sh/workspacenamespace": ""})
    order(inheriting, want_of(stored))
    assert cloud.ordered == []
    first = claims.made_for(cluster, kaito.namespace, "w")[0]
    assert first[0] is POOL, "or it makes a deleted claim anew"


@pytest.mark.parametrize(
    ("other", "left"),
    [
        pytest.param({"size": "Standard_NC96ads_A100_v4"}, 1, id="another-size"),
        pytest.param({"ready": False, "away": 1200}, 1, id="away-for-long"),
        pytest.param({"ready": False, "away": 30}, None, id="away-for-a-moment"),
        pytest.param({"node": False}, None, id="on-its-way"),
        pytest.param({}, None, id="usable"),
    ],
)
def test_what_kaito_s_nodes_leave_over_is_bought(karpenter, stored, kaito, inheriting, cloud, other, left):
    kaito.claim("ws1")
    kaito.claim("ws2", **other)
    order(inheriting, want_of(stored, count=2))
    inheriting.check(want_of(stored, count=2))
    assert cloud.ordered == cloud.checked == ([left] if left else [])


@pytest.mark.parametrize(("count", "ordered", "dropped"), [(2, [2, 1], []), (1, [2], [A100])])
def test_when_fewer_nodes_are_wanted_those_that_were_bought_go_first(
    karpenter, stored, kaito, inheriting, cloud, count, ordered, dropped
):
    kaito.claim("ws1")
    order(inheriting, want_of(stored, count=3))
    order(inheriting, want_of(stored, count=count))
    assert (cloud.ordered, cloud.dropped) == (ordered, []), "the server has not moved yet"
    inheriting.drop_others(want_of(stored, count=count))
    assert (cloud.ordered, cloud.dropped) == (ordered, dropped)


def test_a_node_that_does_not_come_back_is_given_back(karpenter, cluster, stored, kaito, inheriting, cloud):
    lost, good = kaito.claim("ws1", ready=False, away=1200), kaito.claim("ws2")
    order(inheriting, want_of(stored))
    assert cloud.ordered == []
    assert "deletionTimestamp" in cluster.get(CLAIM, lost)["metadata"]
    assert "deletionTimestamp" not in cluster.get(CLAIM, good)["metadata"]


def test_a_node_that_joins_while_we_wait_is_taken_in(karpenter, cluster, stored, kaito, inheriting, cloud):
    name = kaito.claim("ws1", node=False)
    order(inheriting, want_of(stored))
    kaito.join("late", {"app": "phi"}, A100, ready=True, away=0)
    node = f"late-{kaito.namespace}"
    cluster.patch(CLAIM, name, None, {"status": {"nodeName": node}})
    inheriting.check(want_of(stored))
    assert cluster.get(clusters.NODE, node)["metadata"]["labels"][names.UID] == stored["metadata"]["uid"]
    assert (cloud.ordered, cloud.checked) == ([], [])


def test_a_release_takes_kaito_s_claims_and_waits_until_they_are_gone(
    karpenter, cluster, stored, settings, kaito, inheriting, cloud
):
    made = [(kind, kaito.claim(f"x{at}", kind=kind, node=False)) for at, kind in enumerate((CLAIM, MACHINE))]
    others = {"kaito.sh/workspacenamespace": "another"}
    elsewhere = kaito.claim("y", node=False, **others)
    uid = stored["metadata"]["uid"]
    assert inheriting.release(uid) is False
    with concurrent.futures.ThreadPoolExecutor() as pool:
        run = Run(cluster, Workspace.parse(stored), settings, inheriting)
        ending = pool.submit(steps.give_back, run)
        time.sleep(0.5)
        assert not ending.done()
        for kind, name in made:
            remove(cluster, kind, cluster.get(kind, name))
        ending.result(timeout=10)
    assert inheriting.release(uid) is True
    assert "deletionTimestamp" not in cluster.get(CLAIM, elsewhere)["metadata"]


def test_a_claim_that_nobody_gives_back_is_named(karpenter, stored, kaito, inheriting):
    name = kaito.claim("ws1", node=False)
    with pytest.raises(errors.ProvisioningFailedError, match=f"NodeClaim {name} of KAITO's.*gpu-provisioner or"):
        nodes.release(inheriting, stored["metadata"]["uid"], pause=0.2)


def test_a_release_of_an_earlier_workspace_takes_nothing_of_the_next_one(karpenter, cluster, kaito, inheriting):
    name = kaito.claim("ws1", node=False)
    assert inheriting.release("99999999-2222-3333-4444-555555555555") is True
    assert "deletionTimestamp" not in cluster.get(CLAIM, name)["metadata"]


def test_on_brought_nodes_kaito_s_server_is_in_nobody_s_way_and_its_claims_go_all_the_same(
    karpenter, cluster, namespace, stored, kaito
):
    kaito.claim("ws1")
    container = {"name": "c", "image": "i", "resources": {"limits": {nodes.GPU: "1"}}}
    container["securityContext"] = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    secure = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    spec = {"nodeName": f"aks-ws1-{namespace}", "containers": [container], "securityContext": secure}
    metadata = {"name": "w-0", "namespace": namespace, "labels": {"kaito.sh/workspace": "w"}}
    cluster.create(clusters.POD, {"metadata": metadata, "spec": spec})
    provider = claims.Inheriting(ByoProvider(cluster), cluster, (namespace, "w"))
    assert order(provider, want_of(stored)).hostnames == (f"aks-ws1-{namespace}",)
    assert provider.release(stored["metadata"]["uid"]) is False


@pytest.mark.parametrize("kind", [inherited.STATEFUL_SET, clusters.DEPLOYMENT], ids=["v0.12", "v0.3"])
def test_kaito_s_server_gives_way_and_its_service_stays_where_it_is(cluster, namespace, stored, settings, kaito, kind):
    theirs, service = kaito.server(kind), kaito.services()
    workspace = Workspace.parse(stored)
    run = Run(cluster, workspace, settings, provider=None)
    placement = nodes.Placement(labels={"a": "b"})
    server = asks.serving.server(run, "")
    for each, obj in rollout.objects(workspace, settings, server, placement).items():
        checks.dry_run(cluster, workspace, each, obj)
    rollout.apply(run, server, placement)
    assert cluster.get(inherited.STATEFUL_SET, "w", namespace) is None
    ours = cluster.get(clusters.DEPLOYMENT, "w", namespace)
    assert ours["metadata"]["uid"] != theirs["metadata"]["uid"]
    assert ours["spec"]["selector"]["matchLabels"] == rollout.selector(workspace)
    kept = cluster.get(clusters.SERVICE, "w", namespace)
    assert kept["metadata"]["uid"] == service["metadata"]["uid"]
    assert kept["spec"]["clusterIP"] == service["spec"]["clusterIP"]
    assert kept["spec"]["selector"] == rollout.selector(workspace)
    assert [port["port"] for port in kept["spec"]["ports"]] == [80, 29500]
    assert not kept["spec"].get("publishNotReadyAddresses")
    assert cluster.get(clusters.SERVICE, HEADLESS, namespace), "it goes with the Workspace"
    rollout.apply(run, server, placement)
    assert cluster.get(clusters.DEPLOYMENT, "w", namespace)["metadata"]["uid"] == ours["metadata"]["uid"]


def test_somebody_else_s_server_of_that_name_does_not_give_way(cluster, namespace, stored, kaito):
    kaito.owner = {**kaito.owner, "uid": "99999999-2222-3333-4444-555555555555"}
    theirs = kaito.server(inherited.STATEFUL_SET)
    inherited.take_over(cluster, Workspace.parse(stored))
    found = cluster.get(inherited.STATEFUL_SET, "w", namespace)
    assert found["metadata"]["uid"] == theirs["metadata"]["uid"]


def test_a_tuning_that_kaito_began_is_left_to_end(cluster, namespace, stored, kaito):
    kaito.job()
    workspace = Workspace.parse(stored)
    with pytest.raises(errors.KaitoJobRunsError, match=f"kubectl -n {namespace} delete job w"):
        inherited.await_tuned(cluster, workspace)
    cluster.delete(clusters.JOB, "w", namespace)
    inherited.await_tuned(cluster, workspace)


@pytest.mark.parametrize(("end", "counts"), [("Complete", True), ("Failed", False)])
def test_a_tuning_that_kaito_ended_counts_if_it_went_well(cluster, namespace, stored, kaito, end, counts):
    kaito.job(end)
    workspace = Workspace.parse({**stored, **parts_of(making.tuning())})
    inherited.await_tuned(cluster, workspace)
    assert inherited.has_tuned(cluster, workspace) is counts
    inherited.take_over(cluster, workspace)
    assert cluster.get(clusters.JOB, "w", namespace) is None
    assert inherited.has_tuned(cluster, workspace) is False, "an edit tunes anew"


def parts_of(workspace):
    return {"inference": None, "tuning": workspace["tuning"]}


def test_a_tuning_that_was_edited_since_kaito_did_it_does_not_count(cluster, stored, kaito):
    kaito.job("Complete")
    after = parts_of(making.tuning())
    after["tuning"]["input"] = {"urls": ["https://example.com/other.parquet"]}
    assert inherited.has_tuned(cluster, Workspace.parse({**stored, **after})) is False


def test_a_workspace_of_kaito_s_that_we_never_touched_is_released_before_it_goes(cluster, namespace, stored, watcher):
    """Deleted while neither controller ran: KAITO's claims are not in sight of the watcher, so a release looks."""
    told = {"status": {"workerNodes": ["aks-ws1"]}}
    cluster.patch(clusters.WORKSPACE, "w", namespace, told, subresource="status")
    cluster.delete(clusters.WORKSPACE, "w", namespace)
    watcher()
    labels = f"{names.NAMESPACE}={namespace},{names.ROLE}=release"
    job = until(lambda: cluster.items(clusters.JOB, "kaito-hera", labels=labels), what="a release Job", seconds=60)[0]
    left = cluster.get(clusters.WORKSPACE, "w", namespace)
    assert left["metadata"]["finalizers"] == [api.FINALIZER]
    assert left["status"]["nodes"]["inherited"] is True
    done = {"status": {"succeeded": 1}}
    cluster.patch(clusters.JOB, job["metadata"]["name"], "kaito-hera", done, subresource="status")
    until(lambda: cluster.get(clusters.WORKSPACE, "w", namespace) is None, what="a Workspace that is gone")
