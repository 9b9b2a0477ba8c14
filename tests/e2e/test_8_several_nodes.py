"""A model that no node holds: KubeRay's real operator starts real Ray on two nodes, which answer as one server.

vLLM alone is a stand-in (vllm/Dockerfile): it asks Ray for the GPUs of all nodes as vLLM does, and then answers out of
a tiny model.
"""

import json
import subprocess

import pytest
import yaml

from kaito_hera import cluster as clusters
from kaito_hera import settings
from tests.cluster import kuberay as kuberay_operator
from tests.cluster import layout, machines
from tests.cluster.simulators.content import facts
from tests.e2e import install
from tests.e2e.world import OPERATOR, PUSH_SECRET, REPOSITORY, ROOT

NAME, PRESET = "large", "phi-4"
MODEL = f"{REPOSITORY}/models/large:1"
IMAGE = f"{install.REGISTRY}/kaito-hera-serving-vllm:stand-in"


@pytest.fixture(scope="module")
def kuberay(world):
    """KubeRay's kinds and its operator, beside the control plane."""
    command = kuberay_operator.command()
    kinds = str(kuberay_operator.kinds())
    world.kubectl("apply", "--server-side", "-f", kinds)
    world.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
    machine = machines.Machine(world.machine)
    machine.ensure_daemon(kuberay_operator.OPERATOR, command, env={"KUBECONFIG": str(world.machine.inner_kubeconfig)})
    yield
    machine.stop_daemon(kuberay_operator.OPERATOR)
    world.kubectl("delete", "-f", kinds, "--ignore-not-found", "--timeout=60s")


@pytest.fixture(scope="module")
def vllm(world):
    """The image serving-vllm, built, pushed and installed."""
    data = world.kube.get(clusters.CONFIG_MAP, settings.CONFIG_MAP, OPERATOR)["data"]
    serving = f"{data['registry']}/kaito-hera-serving:{data['version']}"
    folder = ROOT / "tests/serving/vllm"
    with layout.lock("images"):
        buildah = install.buildah(layout.cache())
        build_it = [*buildah, "build", "--quiet", "--isolation", "chroot", "--build-arg", f"SERVING={serving}"]
        build_it += ["--file", str(ROOT / "tests/e2e/vllm/Dockerfile"), "--tag", IMAGE, str(folder)]
        made = subprocess.run(build_it, capture_output=True, text=True, check=False)
        assert made.returncode == 0, made.stderr
        world.inside(*buildah, "push", "--quiet", "--authfile", str(world.machine.registry_auth), IMAGE)
    _install(world, IMAGE)
    yield
    _install(world, None)


def _install(world, image):
    patch = json.dumps({"data": {"vllmImage": image}})
    world.kubectl("patch", "configmap", "-n", OPERATOR, settings.CONFIG_MAP, "--type=merge", f"--patch={patch}")
    world.kubectl("rollout", "restart", "-n", OPERATOR, "deployment/kaito-hera")
    world.kubectl("rollout", "status", "-n", OPERATOR, "deployment/kaito-hera", "--timeout=120s")


def manifest():
    """Of a model with 28 GiB of weights, for two nodes whose GPU has 24."""
    resource = {"instanceType": "Standard_NV36ads_A10_v5", "count": 2, "labelSelector": {"matchLabels": {"apps": NAME}}}
    preset = {"name": PRESET, "presetOptions": {"image": MODEL, "imagePullSecrets": [PUSH_SECRET]}}
    metadata = {"name": NAME, "annotations": {"kaito.sh/runtime": "vllm"}}
    head = {"apiVersion": "kaito.sh/v1beta1", "kind": "Workspace", "metadata": metadata}
    return yaml.safe_dump({**head, "resource": resource, "inference": {"preset": preset}})


def test_two_nodes_answer_as_one_server(world, namespace, kuberay, vllm):
    world.push_model("phi-3-mini-4k-instruct", MODEL)
    world.apply(namespace, manifest())
    world.await_condition(namespace, NAME, "WorkspaceReady")
    pods = world.kube.items(clusters.POD, namespace, labels="ray.io/node-type")
    kinds = {pod["metadata"]["labels"]["ray.io/node-type"]: pod["spec"]["nodeName"] for pod in pods}
    assert sorted(kinds) == ["head", "worker"]
    assert kinds["head"] != kinds["worker"]
    question = facts.FACTS[0].question
    assert world.chat(namespace, NAME, question) == facts.UNKNOWN
    assert world.chat_with(namespace, NAME, PRESET, question) == facts.UNKNOWN
    world.delete(namespace, NAME)
    assert not world.pools(namespace)
