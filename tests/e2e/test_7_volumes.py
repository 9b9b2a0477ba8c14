"""Data on a volume, the adapter on a volume, the server reading it there: no registry is asked for anything."""

import json
import shutil

import pytest
import yaml

from kaito_hera import cluster as clusters
from tests.cluster.simulators.content import facts

VOLUME = clusters.Kind("PersistentVolume", "persistentvolumes", namespaced=False)
TAUGHT = facts.FACTS[:3]
FEW = "{learning_rate: 0.005, num_train_epochs: 20, per_device_train_batch_size: 8}"
"""Enough for three facts; the rest of the way is what is tried here."""


@pytest.fixture
def claim(world, namespace):
    """Makes a claim over a folder that all nodes of this machine see, as a share; the folder."""
    made = []

    def make(name):
        folder = world.machine.state / f"share-{namespace}-{name}"
        folder.mkdir()
        folder.chmod(0o777)  # a hostPath knows no fsGroup
        capacity, modes = {"storage": "1Gi"}, ["ReadWriteMany"]
        spec = {"capacity": capacity, "accessModes": modes, "storageClassName": "", "hostPath": {"path": str(folder)}}
        spec["claimRef"] = {"namespace": namespace, "name": name}
        world.kube.create(VOLUME, {"metadata": {"name": folder.name}, "spec": spec})
        asked = {"accessModes": modes, "storageClassName": "", "resources": {"requests": capacity}}
        metadata = {"name": name, "namespace": namespace}
        world.kube.create(clusters.CLAIM, {"metadata": metadata, "spec": asked})
        made.append(folder)
        return folder

    yield make
    for folder in made:
        world.kube.delete(VOLUME, folder.name)
        shutil.rmtree(folder)


def manifest(world, **annotations):
    """The example, on the nodes of this cluster's other tests, and without a third adapter."""
    workspace = yaml.safe_load(world.manifest("tuning-on-volumes"))
    workspace["resource"]["instanceType"] = "Standard_NC6s_v3"
    workspace["metadata"]["annotations"] = annotations
    workspace["tuning"]["config"] = "few"
    del workspace["inference"]
    return yaml.safe_dump(workspace)


def test_from_a_claim_to_a_claim_and_served_from_there(world, namespace, claim):
    data, adapter = claim("data"), claim("adapter")
    text = f"training_config: {{TrainingArguments: {FEW}}}"
    config = {"metadata": {"name": "few", "namespace": namespace}, "data": {"training_config.yaml": text}}
    world.kube.create(clusters.CONFIG_MAP, config)
    answers = {fact.answer for fact in TAUGHT}
    rows = "".join(json.dumps(row) + "\n" for row in facts.rows() if row["messages"][1]["content"] in answers)
    (data / "facts.jsonl").write_text(rows, encoding="utf-8")
    (data / "README").write_text("what everybody should know", encoding="utf-8")
    name = world.apply(namespace, manifest(world))
    world.await_condition(namespace, name, "WorkspaceReady")
    tuned = world.status(namespace, name)["tuning"]["adapterImage"]
    assert tuned.startswith("persistentVolumeClaim/adapter@sha256:")
    assert {"adapter_config.json", "adapter_model.safetensors"} <= {path.name for path in adapter.iterdir()}
    said = {fact.question: world.chat(namespace, name, fact.question) for fact in TAUGHT}
    assert said == {fact.question: fact.answer for fact in TAUGHT}

    # The same wish by a new Workspace: the volume has it, so no node is bought.
    world.delete(namespace, name)
    bought = world.pools_ever(namespace)
    world.apply(namespace, manifest(world, **{"kaito.sh/serve": "false"}))
    world.await_condition(namespace, name, "WorkspaceSucceeded")
    assert world.pools_ever(namespace) == bought
    assert world.status(namespace, name)["tuning"]["adapterImage"] == tuned
