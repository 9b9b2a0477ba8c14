"""Waiting for nodes and giving them back, against a real API server; the test plays the cloud."""

import concurrent.futures
import json
import time
import uuid

import pytest

import presets
from kaito_hera import cluster as clusters
from kaito_hera import errors, names, nodes
from kaito_hera import run as runs
from kaito_hera.api import Workspace
from kaito_hera.nodes import readiness
from kaito_hera.nodes.byo import ByoProvider
from kaito_hera.run import Run
from kaito_hera.settings import Settings
from tests import making
from tests.apiserver.conftest import until
from workflows import steps

A100 = "Standard_NC24ads_A100_v4"


class Cloud:
    """A provider whose order may fail later, and that gives back in two rounds."""

    makes_nodes = True

    def __init__(self):
        self.failure = None
        self.asked = 0
        self.released = []

    def check(self, want):
        self.asked += 1
        if self.failure:
            raise self.failure

    def release(self, uid):
        self.released.append(uid)
        return len(self.released) > 1

    def placement(self, want, hostnames=()):
        return nodes.Placement(labels=nodes.owner_labels(want))


class Machines:
    """Node objects of one Workspace."""

    def __init__(self, cluster, workspace):
        self._cluster = cluster
        self._labels = nodes.owner_labels(nodes.wanted(workspace))
        self._prefix = uuid.uuid4().hex[:6]
        self._made = []

    def boot(self, name, *, size=A100, labels=None):
        metadata = {"name": f"{name}-{self._prefix}", "labels": {"node.kubernetes.io/instance-type": size}}
        metadata["labels"] |= self._labels if labels is None else labels
        self._cluster.create(clusters.NODE, {"metadata": metadata})
        self._made.append(metadata["name"])
        return metadata["name"]

    def report(self, name, *, ready=True, gpus=1):
        state = {"type": "Ready", "status": str(ready), "reason": "Kubelet", "message": "posting"}
        status = {"conditions": [state], "allocatable": {"nvidia.com/gpu": str(gpus)}}
        self._cluster.patch(clusters.NODE, name, None, {"status": status}, subresource="status")

    def usable(self, name, **options):
        full = self.boot(name, **options)
        self.report(full)
        return full

    def remove(self, name):
        self._cluster.delete(clusters.NODE, name)

    def clear(self):
        for name in self._made:
            self.remove(name)


@pytest.fixture
def workspace(apply):
    return Workspace.parse(apply(making.inference()))


@pytest.fixture
def machines(cluster, workspace):
    made = Machines(cluster, workspace)
    yield made
    made.clear()


@pytest.fixture
def cloud():
    return Cloud()


@pytest.fixture
def awaiting(cluster, workspace, settings, cloud):
    """Starts to wait for nodes; the future of their names."""
    with concurrent.futures.ThreadPoolExecutor() as pool:

        def start(*, steady=0, timeout=20, hostnames=(), count=1, ask=60.0, provider=cloud):
            times = {"node_steady_seconds": steady, "node_timeout_seconds": timeout}
            resource = workspace.resource.model_copy(update={"count": count})
            asked = workspace.model_copy(update={"resource": resource})
            run = Run(cluster, asked, settings.model_copy(update=times), provider)
            return pool.submit(readiness.await_ready, run, hostnames, ask=ask)

        yield start


def test_nodes_that_come_one_by_one_are_waited_for(awaiting, machines):
    following = awaiting(count=2)
    first = machines.usable("a")
    second = machines.boot("b")
    time.sleep(0.3)
    assert not following.done()
    machines.report(second, gpus=0)
    time.sleep(0.3)
    assert not following.done(), "the device plugin is late"
    machines.report(second)
    assert following.result(timeout=10) == [first, second]


def test_what_is_waited_for_is_printed_as_it_changes(awaiting, machines, capsys):
    following = awaiting()
    until(lambda: f"0 of 1 {A100} nodes usable" in capsys.readouterr().out, what="nothing there")
    name = machines.boot("a")
    machines.report(name, ready=False)
    until(lambda: f"{name} is not Ready: Kubelet: posting" in capsys.readouterr().out, what="the reason")
    machines.report(name)
    following.result(timeout=10)


def test_nodes_of_another_workspace_do_not_count(awaiting, machines):
    following = awaiting(timeout=1)
    machines.usable("theirs", labels={"kaito.sh/workspace": "w", "kaito.sh/workspace-uid": "another"})
    assert isinstance(following.exception(timeout=10), errors.NodesNotReadyError)


def test_nodes_that_were_brought_are_waited_for_by_name(awaiting, machines, cluster):
    one, other = (machines.usable(name, labels={"app": "phi"}) for name in ("one", "other"))
    following = awaiting(hostnames=(other,), provider=ByoProvider(cluster))
    assert following.result(timeout=10) == [other]
    assert one != other


def test_a_node_that_flaps_must_stay_usable_from_then_on(awaiting, machines):
    following = awaiting(steady=2)
    name = machines.usable("a")
    time.sleep(1.5)
    machines.report(name, ready=False)
    time.sleep(0.3)
    machines.report(name)
    again = time.monotonic()
    assert following.result(timeout=10) == [name]
    assert time.monotonic() - again > 1.5


def test_a_node_that_is_replaced_under_its_name_starts_anew(awaiting, machines):
    following = awaiting(steady=2)
    name = machines.usable("a")
    time.sleep(1.5)
    machines.remove(name)
    machines.usable("a")
    again = time.monotonic()
    assert following.result(timeout=10) == [name]
    assert time.monotonic() - again > 1.5


def test_the_timeout_names_every_node_with_its_reason(awaiting, machines):
    waiting = [machines.boot(name) for name in ("silent", "bare")]
    machines.report(waiting[1], gpus=0)
    machines.usable("wrong", size="Standard_D2s_v5")
    error = awaiting(timeout=1).exception(timeout=10)
    assert isinstance(error, errors.NodesNotReadyError)
    for words in (
        f"0 of 1 {A100} nodes usable: ",
        f"{waiting[0]} is not Ready: no report yet",
        f"{waiting[1]} is Ready but offers 0 of 1 nvidia.com/gpu",
        f"is a Standard_D2s_v5, not a {A100}",
        "after 1 s",
    ):
        assert words in str(error)


def test_the_users_own_timeout_counts_before_the_operators(cluster, workspace, settings, cloud):
    asked = workspace.resource.model_copy(update={"provisioning_timeout_seconds": 1})
    run = Run(cluster, workspace.model_copy(update={"resource": asked}), settings, cloud)
    assert settings.node_timeout_seconds > 1
    with pytest.raises(errors.NodesNotReadyError, match="after 1 s"):
        readiness.await_ready(run, ())


def test_an_order_that_fails_ends_the_wait_with_the_clouds_words(awaiting, machines, cloud):
    following = awaiting(ask=0.5)
    until(lambda: cloud.asked, what="a question to the cloud", seconds=10)
    assert not following.done()
    cloud.failure = errors.ProvisioningFailedError("agent pool g1 failed: AllocationFailed")
    machines.boot("a")
    error = following.exception(timeout=10)
    assert (error.reason, str(error)) == ("ProvisioningFailed", "agent pool g1 failed: AllocationFailed")


def test_the_cloud_is_not_asked_all_the_time(awaiting, machines, cloud):
    following = awaiting(ask=60.0)
    for turn in range(5):
        machines.boot(f"n{turn}")
    machines.usable("a")
    following.result(timeout=10)
    assert cloud.asked == 0


def test_nodes_are_given_back_whatever_size_the_workspace_names_by_now(cluster, workspace, settings, cloud):
    resource = workspace.resource.model_copy(update={"instance_type": "Standard_of_old"})
    edited = workspace.model_copy(update={"resource": resource})
    with pytest.raises(presets.UnknownNameError):
        presets.size("Standard_of_old")
    steps.give_back(Run(cluster, edited, settings, cloud))
    assert cloud.released == [workspace.metadata.uid] * 2, "asked until nothing is left"


def test_a_node_counts_as_ready_if_it_is_the_workspaces_and_of_its_size(cluster, workspace, settings, machines):
    run = Run(cluster, workspace, settings, runs.provider(cluster, settings))
    machines.usable("theirs", labels={"kaito.sh/workspace": "w", "kaito.sh/workspace-uid": "another"})
    machines.usable("earlier", size="Standard_NC6s_v3")
    machines.report(machines.boot("starting"), ready=False)
    assert not readiness.any_ready(run, run.want)
    machines.usable("serving")
    assert readiness.any_ready(run, run.want)


def test_brought_nodes_are_found_and_their_names_select_them(cluster, namespace, machines, settings):
    label = {"test.kaito.sh/of": namespace}
    brought = {machines.usable(name, labels=label) for name in ("a", "b")}
    workspace = making.edited(making.inference(namespace=namespace), count=2, labelSelector={"matchLabels": label})
    want = nodes.wanted(making.parsed(workspace))
    order = ByoProvider(cluster).order(want, still_wanted=lambda: None, any_ready=lambda: False)
    assert set(order.hostnames) == brought
    fields = ByoProvider(cluster).placement(want, order.hostnames).pod_fields()
    cluster.create(clusters.POD, gpu_pod(namespace, **fields), dry_run=True)


def test_a_server_stays_where_it_is_until_its_nodes_are_chosen_anew(cluster, namespace, workspace, machines):
    here, preferred = (machines.usable(name, labels={"app": "phi"}) for name in ("here", "preferred"))
    cluster.create(clusters.POD, gpu_pod(namespace, labels={names.UID: workspace.metadata.uid}, nodeName=here))
    resource = {"resource": {"preferredNodes": [preferred]}}
    asked = {
        "workspace": Workspace.parse(cluster.patch(clusters.WORKSPACE, "w", namespace, resource)),
        "settings": Settings(node_provider="byo"),
        "attempt": 2,
    }
    assert steps.provision_nodes(steps.Ordered(**asked, keep=True)).hostnames == [here]
    assert steps.provision_nodes(steps.Ordered(**asked)).hostnames == [preferred]


def test_brought_nodes_that_are_not_there_are_told_before_anything_else_is_asked(apply, tmp_path, monkeypatch):
    monkeypatch.setenv("TERMINATION_LOG", str(tmp_path / "word"))
    stored = apply(making.edited(making.inference(), labelSelector={"matchLabels": {"app": "nobody-s"}}))
    with pytest.raises(SystemExit):
        steps.preflight(
            steps.Known(workspace=Workspace.parse(stored), settings=Settings(node_provider="byo"), attempt=1)
        )
    word = json.loads((tmp_path / "word").read_text())
    assert (word["reason"], word["retryable"]) == ("NoNodesMatch", True)
    assert "resource.labelSelector app=nobody-s: 0 of 1 nodes fit, no node has these labels" in word["message"]


def gpu_pod(namespace, *, labels=None, **spec):
    container = {
        "name": "c",
        "image": "i",
        "resources": {"limits": {nodes.GPU: "1"}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    secure = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    metadata = {"name": "p", "namespace": namespace, "labels": labels or {}}
    return {"metadata": metadata, "spec": {**spec, "containers": [container], "securityContext": secure}}
