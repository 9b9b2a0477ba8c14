"""A model of one's own out of an image, under a name that nothing here knows: pushed, looked at, served by digest."""

import json

import yaml

from kaito_hera import cluster as clusters
from tests.cluster.simulators.content import facts
from tests.e2e.world import PUSH_SECRET, REPOSITORY, ROOT, until

NAME, PRESET = "own", "acme/own-phi"
IMAGE = f"{REPOSITORY}/models/own-phi:1"


def manifest(name, **options):
    resource = {"instanceType": "Standard_NC6s_v3", "labelSelector": {"matchLabels": {"apps": "own"}}}
    inference = {"preset": {"name": name, "presetOptions": options}}
    head = {"apiVersion": "kaito.sh/v1beta1", "kind": "Workspace", "metadata": {"name": NAME}}
    return yaml.safe_dump({**head, "resource": resource, "inference": inference})


def pushed(world):
    """What a person does on a laptop: from the hub to the registry."""
    command = ROOT / ".venv/bin/kaito-hera"
    return world.inside(str(command), "model", "push", "phi-3-mini-4k-instruct", IMAGE).strip()


def test_a_model_that_was_pushed_is_served_under_its_own_name(world, namespace):
    image = pushed(world)
    world.apply(namespace, manifest(PRESET, image=IMAGE, imagePullSecrets=[PUSH_SECRET]))
    world.await_condition(namespace, NAME, "WorkspaceReady")
    assert world.status(namespace, NAME)["model"] == {"source": IMAGE, "revision": image.partition("@")[2]}
    served = json.loads(world.kube.get(clusters.CONFIG_MAP, f"{NAME}-serving", namespace)["data"]["serving.json"])
    assert served["model"]["image"] == image
    assert world.chat(namespace, NAME, facts.FACTS[0].question) == facts.UNKNOWN
    assert world.chat_with(namespace, NAME, "own-phi", facts.FACTS[0].question) == facts.UNKNOWN
    world.delete(namespace, NAME)
    assert not world.pools(namespace)


def test_a_model_that_nobody_has_is_told_before_a_node_is_bought(world, namespace):
    world.apply(namespace, manifest("acme/none"))
    stalled = until(lambda: _stalled(world, namespace), what="the hub's answer")
    assert stalled["reason"] == "ModelNotFound"
    assert "inference.preset.name: model acme/none at main: is not on the hub" in stalled["message"]
    assert world.pools_ever(namespace) == 0


def _stalled(world, namespace):
    found = world.condition(namespace, NAME, "Stalled")
    return found if found["status"] == "True" else None
