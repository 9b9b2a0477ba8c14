"""The step `train` beside a server that is live, against a real API server; the test plays scheduler and kubelet."""

import concurrent.futures
import json
import uuid

import pytest

from kaito_hera import cluster as clusters
from kaito_hera import names, nodes, rollout
from kaito_hera import run as runs
from kaito_hera.api import Workspace
from kaito_hera.run import Run
from tests import making
from tests.apiserver.conftest import until
from workflows import asks, steps

OLD = f"team.azurecr.io/adapter@sha256:{1:064x}"
NEW = f"team.azurecr.io/adapter@sha256:{2:064x}"


@pytest.fixture
def workspace(cluster, apply, namespace):
    auths = json.dumps({"auths": {"team.azurecr.io": {"auth": "eA=="}}})
    secret = {"metadata": {"name": "push", "namespace": namespace}, "type": "kubernetes.io/dockerconfigjson"}
    cluster.create(clusters.SECRET, {**secret, "stringData": {".dockerconfigjson": auths}})
    return Workspace.parse(apply(making.tuning()))


class Serving:
    """A served Workspace on a node of so many GPUs."""

    def __init__(self, cluster, workspace, settings, node):
        self.run = Run(cluster, workspace, settings, runs.provider(cluster, settings))
        self._cluster, self._node = cluster, node
        self._where = workspace.metadata.namespace

    def start(self, *, gpus, placed=True):
        labels = nodes.owner_labels(self.run.want) | {nodes.SIZE: self.run.want.size.name}
        self._cluster.patch(clusters.NODE, self._node.node, None, {"metadata": {"labels": labels}})
        ready = {"type": "Ready", "status": "True"}
        status = {"conditions": [ready], "allocatable": {nodes.GPU: str(gpus)}}
        self._cluster.patch(clusters.NODE, self._node.node, None, {"status": status}, subresource="status")
        rollout.apply(self.run, asks.serving.server(self.run, OLD), self.run.placement())
        template = self.deployment()["spec"]["template"]
        metadata = {"name": f"w-{uuid.uuid4().hex[:5]}", "namespace": self._where, **template["metadata"]}
        spec = {**template["spec"], **({"nodeName": self._node.node} if placed else {})}
        self._cluster.create(clusters.POD, {"metadata": metadata, "spec": spec})

    def deployment(self):
        return self._cluster.get(clusters.DEPLOYMENT, "w", self._where)

    def job(self):
        return self._cluster.get(clusters.JOB, names.job(self.run.workspace, 2), self._where)


@pytest.fixture
def serving(cluster, workspace, settings, node):
    return Serving(cluster, workspace, settings, node)


@pytest.fixture
def training(workspace, settings, serving, node):
    """Runs the step; its Job ends well, at once."""
    asked = steps.Trained(workspace=workspace, settings=settings, attempt=2)

    def train():
        with concurrent.futures.ThreadPoolExecutor() as pool:
            following = pool.submit(steps.train, asked)
            made = until(lambda: following.done() or serving.job(), what="the Job")
            if not following.done():
                node.end(node.start(made), message=json.dumps({"adapter": NEW}))
            return following.result(timeout=20).adapter

    return train


@pytest.mark.parametrize(
    ("gpus", "placed", "stays"),
    [
        pytest.param(1, True, False, id="it-holds-the-only-gpu"),
        pytest.param(2, True, True, id="there-is-another-gpu"),
        pytest.param(1, False, False, id="it-waits-for-the-only-gpu"),
    ],
)
def test_a_server_makes_room_for_training_only_if_it_must(training, serving, capsys, gpus, placed, stays):
    serving.start(gpus=gpus, placed=placed)
    assert training() == NEW
    assert (serving.deployment() is not None) == stays
    told = "goes on answering" if stays else "no GPU is free: the server of"
    assert told in capsys.readouterr().out


def test_a_step_that_finds_its_job_takes_nothing_down(cluster, training, serving, namespace):
    serving.start(gpus=2)
    training()
    taken = {"metadata": {"name": "theirs", "namespace": namespace}, "spec": pod_of(serving)}
    cluster.create(clusters.POD, taken)
    steps.train(steps.Trained(workspace=serving.run.workspace, settings=serving.run.settings, attempt=2))
    assert serving.deployment() is not None


def pod_of(serving):
    """Somebody's pod that takes the second GPU."""
    return {**serving.deployment()["spec"]["template"]["spec"], "nodeName": serving._node.node}


def test_an_adapter_that_was_found_takes_nothing_down(serving, workspace, settings):
    serving.start(gpus=1)
    asked = steps.Trained(workspace=workspace, settings=settings, attempt=2, adapter=OLD)
    assert steps.train(asked).adapter == OLD
    assert serving.deployment() is not None
    assert serving.job() is None


def test_an_edit_comes_before_anything_is_taken_down(cluster, serving, workspace, settings, namespace, monkeypatch):
    monkeypatch.setenv("TERMINATION_LOG", "/dev/null")
    serving.start(gpus=1)
    tuning = {"input": {"urls": ["https://example.com/other.parquet"]}}
    cluster.patch(clusters.WORKSPACE, "w", namespace, {"tuning": tuning})
    with pytest.raises(SystemExit, match="75"):
        steps.train(steps.Trained(workspace=workspace, settings=settings, attempt=2))
    assert serving.deployment() is not None
    assert names.job(workspace, 2) == f"w-{workspace.metadata.uid[:5]}-a2", "a name that no Workspace has"
    assert serving.job() is None
