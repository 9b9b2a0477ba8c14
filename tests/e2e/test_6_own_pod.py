"""A user serves with a pod of his own: it gets ready by its own probe, answers on port 80, and follows an edit."""

import json

from kaito_hera import cluster as clusters
from kaito_hera import nodes
from tests.e2e.world import PUSH_SECRET, until

NAME = "workspace-own-pod"


def test_a_pod_of_one_s_own(world, namespace):
    world.apply(namespace, json.dumps(_workspace(world, "/app/presets")))
    world.await_condition(namespace, NAME, "WorkspaceReady")
    assert "memory.py" in _answer(world, namespace)
    pod = world.kube.get(clusters.DEPLOYMENT, NAME, namespace)["spec"]["template"]["spec"]
    assert pod["containers"][0]["resources"]["limits"] == {nodes.GPU: "1"}, "it reserves what it pays for"
    said = world.status(namespace, NAME)
    assert any("no container asks for a GPU" in warning for warning in said["warnings"])
    flow = said["workflow"]["name"]
    world.apply(namespace, json.dumps(_workspace(world, "/app/tuning")))
    until(lambda: world.status(namespace, NAME)["workflow"]["name"] != flow, what="a roll-out of the edit")
    world.await_condition(namespace, NAME, "WorkspaceReady")
    assert "run.py" in _answer(world, namespace)


def _workspace(world, folder):
    """The operator's image is there, and Python in it can serve a folder."""
    operator = world.kube.get(clusters.DEPLOYMENT, "kaito-hera", "kaito-hera")["spec"]["template"]["spec"]
    server = {
        "name": "server",
        "image": operator["containers"][0]["image"],
        "command": ["python3", "-m", "http.server", "5000", "--directory", folder],
        "readinessProbe": {"httpGet": {"path": "/", "port": 5000}, "periodSeconds": 1},
        "securityContext": operator["containers"][0]["securityContext"],
    }
    pod = {
        "containers": [server],
        "imagePullSecrets": [{"name": PUSH_SECRET}],
        "securityContext": operator["securityContext"],
        "terminationGracePeriodSeconds": 1,
    }
    return {
        "apiVersion": "kaito.sh/v1beta1",
        "kind": "Workspace",
        "metadata": {"name": NAME},
        "resource": {"instanceType": "Standard_NC6s_v3", "labelSelector": {"matchLabels": {"app": NAME}}},
        "inference": {"template": {"spec": pod}},
    }


def _answer(world, namespace):
    address = world.kube.get(clusters.SERVICE, NAME, namespace)["spec"]["clusterIP"]
    return world.inside("curl", "-sS", "--max-time", "20", f"http://{address}/")
