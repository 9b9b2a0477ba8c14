"""A model over several nodes: KubeRay's real kinds and its real operator take what a roll-out makes.

The operator makes the Ray cluster and its pods; nobody runs them, so no Ray starts and nothing is served here.
"""

import os
import subprocess

import pytest

from kaito_hera import checks, errors, nodes, rayservice, rollout
from kaito_hera import cluster as clusters
from kaito_hera.api import Workspace
from kaito_hera.run import Run
from kaito_hera.settings import Settings
from tests import making
from tests.apiserver.conftest import NAMESPACE, connected, until
from tests.cluster import kuberay as kuberay_operator
from tests.cluster import testing
from workflows import asks

IMAGE = "registry.example/serving-vllm:1"
SETTINGS = Settings(vllm_image=IMAGE)
PLACEMENT = nodes.Placement(labels={"apps": "llama"}, whole=2)


@pytest.fixture(scope="module")
def ray_kubeconfig():
    """An API server with KubeRay's kinds, and with its operator at work."""
    with testing.apiserver() as path:
        testing.install(path)
        testing.kubectl(path, "apply", "--server-side", "-f", str(kuberay_operator.kinds()))
        testing.kubectl(path, "wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
        yield path


@pytest.fixture(scope="module")
def kuberay(ray_kubeconfig, tmp_path_factory):
    log = tmp_path_factory.mktemp("kuberay") / "log"
    with (
        log.open("w") as output,
        subprocess.Popen(
            kuberay_operator.command(),
            env=os.environ | {"KUBECONFIG": str(ray_kubeconfig)},
            stdout=output,
            stderr=output,
        ) as process,
    ):
        yield log
        process.kill()


@pytest.fixture
def over_nodes(ray_kubeconfig, kuberay):
    """A Workspace over three nodes in a namespace of its own, with the run that rolls it out."""
    cluster = connected(ray_kubeconfig)
    namespace = f"team-{os.urandom(4).hex()}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    cluster.create(NAMESPACE, {"metadata": {"name": namespace, "labels": labels}})
    return Over(cluster, namespace)


class Over:
    def __init__(self, cluster, namespace):
        self.cluster, self.namespace = cluster, namespace
        made = workspace(namespace)
        kept = ("name", "namespace", "annotations")
        made["metadata"] = {key: value for key, value in made["metadata"].items() if key in kept}
        self.stored = cluster.create(clusters.WORKSPACE, made)

    def run(self, settings=SETTINGS):
        return Run(self.cluster, Workspace.parse(self.stored), settings, provider=None)

    def roll_out(self, **edited):
        parsed = self.run()
        server = asks.serving.expected(parsed.workspace, SETTINGS, want=parsed.want)
        for name, value in edited.items():
            object.__setattr__(server, name, value)
        rollout.apply(parsed, server, PLACEMENT)
        return self.service()

    def service(self):
        return self.cluster.get(clusters.RAY_SERVICE, "w", self.namespace)

    def pods(self):
        return self.cluster.items(clusters.POD, self.namespace, labels="ray.io/node-type")


def workspace(namespace, **resource):
    made = making.inference(annotations={"kaito.sh/runtime": "vllm"})
    made["metadata"]["namespace"] = namespace
    made["resource"] |= {"instanceType": "Standard_NC24ads_A100_v4", "count": 3, **resource}
    made["inference"]["preset"] = {
        "name": "llama-3.3-70b-instruct",
        "presetOptions": {"modelAccessSecret": "hf"},
    }
    return made


def test_kuberay_makes_a_head_and_workers_of_it(over_nodes):
    over_nodes.roll_out()
    pods = until(lambda: len(found := over_nodes.pods()) == 3 and found, what="three pods")
    kinds = sorted(pod["metadata"]["labels"]["ray.io/node-type"] for pod in pods)
    assert kinds == ["head", "worker", "worker"]
    for pod in pods:
        [container] = pod["spec"]["containers"]
        assert container["image"] == IMAGE
        assert container["resources"]["limits"]["nvidia.com/gpu"] == "2"
        assert "ray start" in container["args"][0]
        assert pod["spec"]["nodeSelector"] == {"apps": "llama"}
        assert pod["spec"]["initContainers"][0]["args"][1] == "--fetch"
        assert rollout.selector(over_nodes.run().workspace).items() <= pod["metadata"]["labels"].items()
        secret = next(each for each in container["env"] if each["name"] == "RAY_AUTH_TOKEN")["valueFrom"][
            "secretKeyRef"
        ]
        assert over_nodes.cluster.get(clusters.SECRET, secret["name"], over_nodes.namespace)
    head = next(pod for pod in pods if pod["metadata"]["labels"]["ray.io/node-type"] == "head")
    assert {"name": "serve", "containerPort": 5000, "protocol": "TCP"} in head["spec"]["containers"][0]["ports"]
    services = until(
        lambda: over_nodes.cluster.items(clusters.SERVICE, over_nodes.namespace, labels="ray.io/node-type"),
        what="a Service for the head",
    )
    ports = {port["name"]: port["port"] for service in services for port in service["spec"]["ports"]}
    assert {"gcs-server": 6379, "dashboard": 8265, "serve": 5000}.items() <= ports.items()
    told = until(lambda: over_nodes.service()["status"].get("conditions"), what="a word of the operator's")
    assert {each["type"]: each["status"] for each in told}["Ready"] == "False"
    assert all(each["reason"] != "ValidationFailed" for each in told), told


def test_the_service_asks_the_head_alone_and_the_policy_lets_ray_s_own_in(over_nodes):
    over_nodes.roll_out()
    service = over_nodes.cluster.get(clusters.SERVICE, "w", over_nodes.namespace)
    assert rayservice.HEAD.items() <= service["spec"]["selector"].items()
    policy = over_nodes.cluster.get(clusters.NETWORK_POLICY, "w-serving", over_nodes.namespace)
    open_to_all, among, operator = policy["spec"]["ingress"]
    assert [port["port"] for port in open_to_all["ports"]] == [5000]
    assert "from" not in open_to_all
    assert "ports" not in among
    assert [port["port"] for port in operator["ports"]] == [8265]


def test_applying_again_changes_nothing_and_other_pods_are_another_ray_service(over_nodes):
    first = over_nodes.roll_out()
    assert over_nodes.roll_out()["metadata"]["uid"] == first["metadata"]["uid"]
    assert over_nodes.service()["metadata"]["generation"] == first["metadata"]["generation"]
    again = over_nodes.roll_out(image="registry.example/serving-vllm:2")
    assert again["metadata"]["uid"] != first["metadata"]["uid"]


def test_either_server_gives_way_to_the_other_and_both_to_a_release(over_nodes):
    over_nodes.roll_out(nodes=1)
    assert rollout.standing(over_nodes.cluster, over_nodes.run().workspace)[0] == clusters.DEPLOYMENT
    over_nodes.roll_out()
    assert over_nodes.cluster.get(clusters.DEPLOYMENT, "w", over_nodes.namespace) is None
    kind, read = rollout.standing(over_nodes.cluster, over_nodes.run().workspace)
    assert (kind, read["spec"]["replicas"]) == (clusters.RAY_SERVICE, 1)
    over_nodes.roll_out(nodes=1)
    assert over_nodes.service() is None
    over_nodes.roll_out()
    rollout.remove(over_nodes.run())
    assert over_nodes.service() is None


def test_what_is_asked_of_kuberay_is_asked_before_a_node_is_bought(over_nodes):
    run = over_nodes.run()
    server = asks.serving.expected(run.workspace, SETTINGS, want=run.want)
    made = rollout.objects(run.workspace, SETTINGS, server, PLACEMENT)[clusters.RAY_SERVICE]
    checks.dry_run(over_nodes.cluster, run.workspace, clusters.RAY_SERVICE, made)
    assert over_nodes.service() is None
    made["spec"]["rayClusterConfig"]["authOptions"] = {"unheard": "of"}
    with pytest.raises(errors.KubeRayMissingError, match=r"unheard.*KubeRay 1\.5\.1 or newer"):
        checks.dry_run(over_nodes.cluster, run.workspace, clusters.RAY_SERVICE, made)


def test_without_kuberay_it_is_refused_with_a_remedy(cluster, namespace):
    parsed = making.parsed(workspace(namespace))
    server = asks.serving.expected(parsed, SETTINGS, want=nodes.wanted(parsed))
    made = rollout.objects(parsed, SETTINGS, server, PLACEMENT)[clusters.RAY_SERVICE]
    with pytest.raises(errors.KubeRayMissingError, match=r"no RayService: .* install KubeRay 1\.5\.1 or newer"):
        checks.dry_run(cluster, parsed, clusters.RAY_SERVICE, made)
