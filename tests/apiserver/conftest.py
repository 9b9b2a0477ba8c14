"""One real API server for all tests here. It has no nodes and no controllers: a test plays kubelet and Argo itself."""

import os
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from kaito_hera import api
from kaito_hera import cluster as clusters
from kaito_hera.settings import Azure, Settings
from tests import making
from tests.apiserver.kaito import BETA, CLAIM, CRD, MACHINE, POOL, Cloud, Kaito, answers, crd
from tests.apiserver.kubelet import kubelet
from tests.cluster import build, testing
from tests.simulators.conftest import tls  # noqa: F401
from tests.wire import Wire

ROOT = Path(__file__).parents[2]
NAMESPACE = clusters.Kind("Namespace", "namespaces", namespaced=False)


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.apiserver)


class Kubectl:
    """The users' own tool."""

    def __init__(self, kubeconfig):
        self._command = [str(build.binary("kubectl")), "--kubeconfig", str(kubeconfig)]

    def __call__(self, *arguments, check=True, stdin=None):
        command = [*self._command, *map(str, arguments)]
        end = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
        assert not check or end.returncode == 0, f"kubectl {' '.join(map(str, arguments))}: {end.stderr}"
        return end


@pytest.fixture(scope="session")
def kubeconfig():
    with testing.apiserver() as path:
        testing.install(path, argo=True)
        yield path


@pytest.fixture(scope="session")
def spare():
    """The kubeconfig of an API server on which tests change what is installed; each begins with what it needs."""
    with testing.apiserver() as path:
        yield path


def connected(kubeconfig):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KUBECONFIG", str(kubeconfig))
        return clusters.Cluster.connect()


@pytest.fixture(scope="session")
def kubectl(kubeconfig):
    return Kubectl(kubeconfig)


@pytest.fixture
def cluster(kubeconfig, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    return clusters.Cluster.connect()


@pytest.fixture
def wire(cluster, kubeconfig, tmp_path, monkeypatch):
    """A wire to the API server that a test may cut, with a connection over it."""
    port = int(cluster._configuration.host.rpartition(":")[2])
    with Wire(port) as between:
        detour = tmp_path / "detour"
        detour.write_text(kubeconfig.read_text().replace(f":{port}", f":{between.port}"))
        monkeypatch.setenv("KUBECONFIG", str(detour))
        between.cluster = clusters.Cluster.connect()
        yield between


@pytest.fixture
def namespace(cluster):
    """A namespace of its own, with the strictest Pod Security."""
    name = f"team-{uuid.uuid4().hex[:8]}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    cluster.create(NAMESPACE, {"metadata": {"name": name, "labels": labels}})
    return name


@pytest.fixture
def node(cluster, namespace, tls):  # noqa: F811
    with kubelet(cluster, namespace, tls) as playing:
        yield playing


@pytest.fixture
def settings():
    azure = Azure(tenant_id="t", client_id="c", subscription_id="s", resource_group="g", cluster_name="a", location="l")
    return Settings(node_provider="aks", azure=azure, argo_timeout_seconds=5)


@pytest.fixture
def apply(cluster, namespace):
    """Create a Workspace of `making` in the test's namespace; the object as it is stored."""

    def create(workspace):
        metadata = {"name": workspace["metadata"]["name"], "namespace": namespace}
        if annotations := workspace["metadata"].get("annotations"):
            metadata["annotations"] = annotations
        return cluster.create(clusters.WORKSPACE, {**workspace, "metadata": metadata})

    return create


@pytest.fixture
def watcher(kubeconfig, cluster, namespace, tmp_path):
    """Starts `kaito-hera watch` as a process that need not wait for a dead one's lead; all end with the test."""
    for kind in (clusters.WORKSPACE, clusters.WORKFLOW):
        for left in cluster.items(kind):
            if left["metadata"]["namespace"] != namespace:  # an earlier test's, which would keep it busy
                remove(cluster, kind, left)
    folder = tmp_path / "settings"
    folder.mkdir()
    azure = "{tenantId: t, clientId: c, subscriptionId: s, resourceGroup: g, clusterName: a, location: l}"
    for name, value in {"nodeProvider": "aks", "azure": azure, "argoTimeoutSeconds": "5"}.items():
        (folder / name).write_text(value)
    started = []

    def start(*, leads=True):
        if leads:
            cluster.delete(clusters.LEASE, "kaito-hera", "kaito-hera")
        command = [sys.executable, "-m", "workflows", "watch", "--settings", folder, "--health-port", "0"]
        environment = {**os.environ, "KUBECONFIG": str(kubeconfig), "HOSTNAME": f"watcher-{uuid.uuid4().hex[:6]}"}
        with (tmp_path / f"watcher-{len(started)}.log").open("w") as log:
            process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def remove(cluster, kind, obj):
    """Delete it and whatever it waits for."""
    name, namespace = obj["metadata"]["name"], obj["metadata"].get("namespace")
    if obj["metadata"].get("finalizers"):
        cluster.patch(kind, name, namespace, {"metadata": {"finalizers": None}})
    cluster.delete(kind, name, namespace)


def until(look, *, what, seconds=30):
    """Wait until `look()` is true; its value."""
    deadline = time.monotonic() + seconds
    while True:
        if found := look():
            return found
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def karpenter_s_kinds(kubeconfig):
    """For a module, not for each test: the first write of a new kind takes the API server two seconds."""
    cluster = connected(kubeconfig)
    made = [crd(POOL, "v1"), crd(CLAIM, "v1", "v1beta1"), crd(MACHINE, "v1alpha5")]
    for each in made:
        cluster.create(CRD, each)
    for kind in (POOL, CLAIM, BETA, MACHINE):
        until(lambda kind=kind: answers(cluster, kind), what=f"an answer for {kind.name}")
    yield
    for each in made:
        cluster.delete(CRD, each["metadata"]["name"])
    for kind in (POOL, CLAIM, MACHINE):
        until(lambda kind=kind: not answers(cluster, kind), what=f"no {kind.name} any more")


@pytest.fixture
def karpenter(cluster, karpenter_s_kinds):
    """Karpenter's kinds, as far as KAITO of both eras uses them; no object of them stays."""
    yield
    for kind in (POOL, CLAIM, MACHINE):
        for obj in cluster.items(kind):
            remove(cluster, kind, obj)


@pytest.fixture
def stored(apply, cluster, namespace):
    made = apply(making.inference())
    told = {"metadata": {"finalizers": [api.FINALIZER]}}
    return cluster.patch(clusters.WORKSPACE, made["metadata"]["name"], namespace, told)


@pytest.fixture
def kaito(cluster, namespace, stored):
    taken = {"status": {"nodes": {"inherited": True}}}
    cluster.patch(clusters.WORKSPACE, "w", namespace, taken, subresource="status")
    made = Kaito(cluster, stored)
    yield made
    made.clear()


@pytest.fixture
def cloud():
    return Cloud()
