"""Models out of images that the kubelet mounts, where API server, namespace and nodes have image volumes."""

import pytest

from kaito_hera import cluster as clusters
from kaito_hera import imagevolumes, nodes, rollout
from kaito_hera.api import Workspace
from kaito_hera.run import Run
from tests import making
from tests.apiserver.conftest import NAMESPACE, connected
from tests.cluster import testing
from workflows import asks
from workflows.asks import images

ABLE = {"containerRuntimeVersion": "containerd://2.1.4", "kubeletVersion": "v1.34.1"}
PLACEMENT = nodes.Placement(labels={"kaito": "image-volumes"})
IMAGE = "team.azurecr.io/models/own:1"
DIGEST = f"sha256:{'a' * 64}"


def node(**said):
    return {"metadata": {"name": "n1", "labels": PLACEMENT.labels}, "status": {"nodeInfo": {**ABLE, **said}}}


def workspace(namespace):
    preset = {"name": "phi-3-mini-4k-instruct", "presetOptions": {"image": IMAGE}}
    made = making.edited(making.inference(), inference={"preset": preset})
    return Workspace.parse({**made, "metadata": {**made["metadata"], "namespace": namespace}})


@pytest.fixture(scope="module")
def gated():
    """An API server that admits image volumes, with a node that mounts them."""
    with testing.apiserver(flags=["--feature-gates=ImageVolume=true"]) as kubeconfig:
        cluster = connected(kubeconfig)
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        cluster.create(NAMESPACE, {"metadata": {"name": "team", "labels": labels}})
        cluster.create(clusters.NODE, {"metadata": {"name": "n1", "labels": PLACEMENT.labels}})
        info = {**cluster.get(clusters.NODE, "n1")["status"]["nodeInfo"], **ABLE}
        cluster.patch(clusters.NODE, "n1", "", {"status": {"nodeInfo": info}}, subresource="status")
        yield cluster


def mounted(cluster, settings, namespace, **given):
    run = Run(cluster, workspace(namespace), settings.model_copy(update=given), None, pinned=DIGEST)
    server = asks.serving.expected(run.workspace, run.settings, pinned=DIGEST)
    return run, images.mounted(run, server, PLACEMENT)


def test_where_all_have_them_the_kubelet_mounts_the_model(gated, settings):
    assert imagevolumes.lack(gated, "team", [node()]) == ""
    run, server = mounted(gated, settings, "team", image_volumes="where-possible")
    template = rollout.pod_template(run.workspace, run.settings, server, PLACEMENT)
    made = gated.create(
        clusters.POD, {"metadata": {"name": "p", "namespace": "team"}, "spec": template["spec"]}, dry_run=True
    )
    volumes = {volume["name"]: volume for volume in made["spec"]["volumes"]}
    assert volumes["model"]["image"] == {"reference": f"team.azurecr.io/models/own@{DIGEST}", "pullPolicy": "Always"}
    container = made["spec"]["containers"][0]
    assert {"name": "MODEL_FOLDER", "value": "/mnt/model"} in container["env"]
    assert {"name": "model", "mountPath": "/mnt/model", "readOnly": True} in container["volumeMounts"]
    assert {"name": "w-registry"} in made["spec"]["imagePullSecrets"]


def test_an_api_server_without_them_is_noticed(cluster, namespace):
    lack = imagevolumes.lack(cluster, namespace, [node()])
    assert lack == "the API server has no image volumes (feature gate ImageVolume)"


def test_without_nodes_that_say_so_the_server_fetches_its_model(cluster, settings, namespace, capsys):
    _, server = mounted(cluster, settings, namespace, image_volumes="where-possible")
    assert server.mounted == ()
    assert "the server fetches its model: no node is there" in capsys.readouterr().out


def test_they_are_taken_where_they_are_wished_for(gated, settings):
    _, server = mounted(gated, settings, "team")
    assert (server.mounted, [each["name"] for each in server.env]) == ((), [])


@pytest.mark.parametrize(
    ("said", "able"),
    [
        ({"containerRuntimeVersion": "containerd://2.0.5"}, False),
        ({"containerRuntimeVersion": "containerd://1.7.28-1"}, False),
        ({"containerRuntimeVersion": "containerd://2.10.0-rc.1"}, True),
        ({"containerRuntimeVersion": "cri-o://1.31.2"}, True),
        ({"containerRuntimeVersion": "cri-o://1.30.9"}, False),
        ({"containerRuntimeVersion": "docker://29.0"}, False),
        ({"containerRuntimeVersion": ""}, False),
        ({"kubeletVersion": "v1.32.9"}, False),
        ({"kubeletVersion": "v1.33.0-eks-1"}, True),
        ({"kubeletVersion": "x"}, False),
    ],
)
def test_each_node_must_mount_images(gated, said, able):
    lack = imagevolumes.lack(gated, "team", [node(), node(**said)])
    assert (lack == "") is able
    assert able or (lack.startswith("node n1 (") and lack.endswith(") mounts no images"))


def test_a_namespace_that_admits_no_such_pod_is_noticed(gated):
    quota = clusters.Kind("ResourceQuota", "resourcequotas")
    gated.create(NAMESPACE, {"metadata": {"name": "full"}})
    gated.create(quota, {"metadata": {"name": "none", "namespace": "full"}, "spec": {"hard": {"pods": "0"}}})
    gated.patch(quota, "none", "full", {"status": {"hard": {"pods": "0"}, "used": {"pods": "0"}}}, subresource="status")
    assert "exceeded quota" in imagevolumes.lack(gated, "full", [node()])
