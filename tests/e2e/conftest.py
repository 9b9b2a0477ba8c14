"""The product on the one-machine cluster that `make cluster-install` made; every test has a namespace of its own."""

import threading
from pathlib import Path

import pytest

from kaito_hera import cluster as clusters
from kaito_hera import errors
from tests.cluster import machines
from tests.e2e.world import World


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.e2e)
            item.add_marker(pytest.mark.timeout(2400))


@pytest.fixture(scope="session")
def world():
    found = World()
    if not machines.Machine(found.machine).on():
        pytest.fail(f"cluster {found.name} does not run: make cluster-install CLUSTER={found.name}")
    found.kubectl("rollout", "status", "-n", "kaito-hera", "deployment/kaito-hera", "--timeout=60s")
    return found


@pytest.fixture
def namespace(world):
    """A team's namespace; after the test nothing may be left of its Workspaces, in the cluster or on the bill."""
    name = world.new_namespace()
    yield name
    world.kubectl("delete", "workspaces", "-n", name, "--all", "--timeout=180s", check=False)
    world.await_nothing_left(name)
    world.kubectl("delete", "namespace", name, "--wait=false", check=False)


@pytest.fixture(scope="session", autouse=True)
def every_pod(world):
    """Every pod that is seen during the whole run, by namespace and name."""
    seen = {}
    stop = threading.Event()

    def collect():
        since = ""
        while not stop.is_set():
            try:
                if not since:
                    page = world.kube.page(clusters.POD)
                    seen.update({_id(pod): pod for pod in page["items"]})
                    since = page["metadata"]["resourceVersion"]
                for event, pod in world.kube.watch(clusters.POD, since=since, seconds=20):
                    since = pod["metadata"]["resourceVersion"]
                    if event != "BOOKMARK":
                        seen[_id(pod)] = pod
            except errors.KaitoError:
                since = ""

    threading.Thread(target=collect, daemon=True).start()
    yield seen
    stop.set()


def _id(pod):
    return pod["metadata"].get("namespace", ""), pod["metadata"].get("name", "")
