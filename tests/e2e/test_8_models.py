"""A model of one's own out of an image, under a name that nothing here knows: pushed, looked at, served by digest."""

import json

import yaml

from kaito_hera import cluster as clusters
from tests.cluster.simulators.content import facts
from tests.e2e.world import PUSH_SECRET, REPOSITORY, until

NAME, PRESET = "own", "acme/own-phi"
IMAGE = f"{REPOSITORY}/models/own-phi:1"


def manifest(name, **options):
    resource = {"instanceType": "Standard_NC6s_v3", "labelSelector": {"matchLabels": {"apps": "own"}}}
    inference = {"preset": {"name": name, "presetOptions": options}}
    head = {"apiVersion": "kaito.sh/v1beta1", "kind": "Workspace", "metadata": {"name": NAME}}
    return yaml.safe_dump({**head, "resource": resource, "inference": inference})


def test_a_model_that_was_pushed_is_served_under_its_own_name(world, namespace):
    image = world.push_model("phi-3-mini-4k-instruct", IMAGE)
    world.apply(namespace, manifest(PRESET, image=IMAGE, imagePullSecrets=[PUSH_SECRET]))
    world.await_condition(namespace, NAME, "WorkspaceReady")
    assert world.status(namespace, NAME)["model"] == {"source": IMAGE, "revision": image.partition("@")[2]}
    served = json.loads(world.kube.get(clusters.CONFIG_MAP, f"{NAME}-serving", namespace)["data"]["serving.json"])
    assert served["model"]["image"] == image
    assert world.chat(namespace, NAME, facts.FACTS[0].question) == facts.UNKNOWN
    assert world.chat_with(namespace, NAME, "own-phi", facts.FACTS[0].question) == facts.UNKNOWN
    world.delete(namespace, NAME)
    assert not world.pools(namespace)


def test_a_model_out_of_an_image_is_tuned(world, namespace):
    """The model's Secret is the push Secret here: one registry holds both."""
    image = world.push_model("phi-3-mini-4k-instruct", IMAGE)
    workspace = yaml.safe_load(world.manifest("tuning-phi-3", image=namespace))
    workspace["metadata"]["annotations"] = {"kaito.sh/serve": "false"}
    config = {"training_config": {"QuantizationConfig": {"load_in_4bit": True}, "TrainingArguments": {"max_steps": 20}}}
    data = {"training_config.yaml": yaml.safe_dump(config)}  # what is learned is another test's matter
    world.kube.create(clusters.CONFIG_MAP, {"metadata": {"name": "short", "namespace": namespace}, "data": data})
    workspace["tuning"]["config"] = "short"
    workspace["tuning"]["preset"]["presetOptions"] = {"image": IMAGE, "imagePullSecrets": [PUSH_SECRET]}
    name = world.apply(namespace, yaml.safe_dump(workspace))
    world.await_condition(namespace, name, "WorkspaceSucceeded")
    seen = world.status(namespace, name)
    assert seen["model"]["revision"] == image.partition("@")[2]
    assert seen["tuning"]["adapterImage"].startswith(f"{REPOSITORY}/{namespace}@sha256:")


def test_a_model_that_nobody_has_is_told_before_a_node_is_bought(world, namespace):
    world.apply(namespace, manifest("acme/none"))
    stalled = until(lambda: _stalled(world, namespace), what="the hub's answer")
    assert stalled["reason"] == "ModelNotFound"
    assert "inference.preset.name: model acme/none at main: is not on the hub" in stalled["message"]
    assert world.pools_ever(namespace) == 0


def _stalled(world, namespace):
    found = world.condition(namespace, NAME, "Stalled")
    return found if found["status"] == "True" else None
