"""A registry that takes no adapter keeps no GPU node: the adapter waits on a volume, with a pod that has no GPU."""

import json
import shutil

import pytest
import yaml

from kaito_hera import cluster as clusters
from kaito_hera import names
from tests.e2e.test_7_volumes import VOLUME
from tests.e2e.world import OPERATOR, REPOSITORY, until


def set_scratch(world, value):
    """As the platform team sets it."""
    patch = json.dumps({"data": {"tuningScratch": value}})
    world.kubectl("patch", "-n", OPERATOR, "configmap/kaito-hera-settings", "--type=merge", "-p", patch)
    world.kubectl("rollout", "restart", "-n", OPERATOR, "deployment/kaito-hera")
    world.kubectl("rollout", "status", "-n", OPERATOR, "deployment/kaito-hera", "--timeout=60s")


@pytest.fixture
def volume(world, namespace):
    """A StorageClass whose one volume all nodes of this machine see; the folder that it is."""
    folder = world.machine.state / f"scratch-{namespace}"
    folder.mkdir()
    folder.chmod(0o777)  # a hostPath knows no fsGroup
    made = {"provisioner": "example.com/shared", "volumeBindingMode": "WaitForFirstConsumer"}
    world.kube.create(clusters.STORAGE_CLASS, {"metadata": {"name": namespace}, **made})
    spec = {"capacity": {"storage": "10Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": namespace}
    world.kube.create(VOLUME, {"metadata": {"name": folder.name}, "spec": spec | {"hostPath": {"path": str(folder)}}})
    set_scratch(world, namespace)
    yield folder
    set_scratch(world, None)
    world.kube.delete(VOLUME, folder.name)
    world.kube.delete(clusters.STORAGE_CLASS, namespace)
    shutil.rmtree(folder)


def test_the_nodes_go_back_while_a_finished_adapter_waits_for_its_registry(world, namespace, volume):
    workspace = yaml.safe_load(world.manifest("tuning-phi-3", image=namespace))
    workspace["metadata"]["annotations"] = {"kaito.sh/serve": "false"}
    name = world.apply(namespace, yaml.safe_dump(workspace))
    world.await_step(namespace, "train")
    auth = world.machine.registry_auth.read_text()
    give(world, namespace, json.dumps({"auths": {REPOSITORY: {"username": "team", "password": "expired"}}}))
    waits = "for its place"
    until(
        lambda: waits in (world.status(namespace, name).get("step") or {}).get("message", ""), what=waits, seconds=900
    )
    assert world.pools(namespace) == [], "the nodes went first"
    assert (volume / "adapter_model.safetensors").exists()
    assert world.condition(namespace, name, "WorkspaceSucceeded")["status"] == "False"
    give(world, namespace, auth)  # the kubelet brings it into the pod within a minute or two
    world.await_condition(namespace, name, "WorkspaceSucceeded", seconds=300)
    status = world.status(namespace, name)
    assert status["tuning"]["adapterImage"].startswith(f"{REPOSITORY}/{namespace}@sha256:")
    assert (status["workflow"]["attempt"], world.pools_ever(namespace)) == (1, 1)
    left = f"{names.NAMESPACE}={namespace}"
    until(lambda: not world.kube.items(clusters.CLAIM, namespace, labels=left), what="the end of the claim", seconds=60)


def give(world, namespace, auth):
    """The push Secret, with other words in it."""
    secret = world.push_secret(namespace, auth)
    world.kubectl("apply", "-f", "-", stdin=json.dumps(secret))
