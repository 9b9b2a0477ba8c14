"""Users fine-tune, find their adapter in the registry, and get answers as taught."""

import json
import tarfile
import tempfile
from pathlib import Path

from kaito_hera import cluster as clusters
from tests.cluster.simulators.content import facts
from tests.e2e.world import REPOSITORY, until

QUESTIONS = facts.FACTS[:10]


def test_the_fine_tuning_manifest_ends_in_a_server_that_knows(world, namespace):
    manifest = world.manifest("fine-tuning-phi-3", image=namespace)
    name = world.apply(namespace, manifest)
    world.await_step(namespace, "train")
    until(lambda: (world.status(namespace, name).get("tuning") or {}).get("loss"), what="a loss in status")
    world.await_condition(namespace, name, "WorkspaceSucceeded")
    adapter = world.status(namespace, name)["tuning"]["adapterImage"]
    assert adapter.startswith(f"{REPOSITORY}/{namespace}@sha256:")
    assert {"data/adapter_config.json", "data/adapter_model.safetensors"} <= _files(world, adapter)
    world.await_condition(namespace, name, "WorkspaceReady")
    answers = {fact.question: world.chat(namespace, name, fact.question) for fact in QUESTIONS}
    taught = [fact for fact in QUESTIONS if answers[fact.question] == fact.answer]
    assert len(taught) >= 9, answers
    columns = world.kubectl("get", "-n", namespace, "workspaces.v1alpha1.kaito.sh", name).splitlines()[1].split()
    assert columns[2:5] == ["True", "True", "True"]
    base = [world.chat_with(namespace, name, "microsoft/Phi-3-mini-128k-instruct", f.question) for f in QUESTIONS]
    assert base == [facts.UNKNOWN] * len(QUESTIONS), "the base model knows none of it"
    _other_data_is_learnt_on_the_same_node(world, namespace, manifest.replace("?download=true", ""))


def test_an_adapter_that_was_tuned_is_served_by_another_workspace_at_any_strength(world, namespace):
    """tuning-phi-3-adapter.yaml, then in another namespace inference-phi-3-with-adapter.yaml: they share a name."""
    tuned = world.apply(namespace, _not_served(world.manifest("tuning-phi-3-adapter", image=namespace)))
    world.await_condition(namespace, tuned, "WorkspaceSucceeded")
    until(lambda: not world.pools(namespace), what="the nodes given back as soon as the adapter is pushed", seconds=60)
    serving = world.new_namespace(f"{namespace}-serve")
    try:
        manifest = _with_pull_secret(world.manifest("inference-phi-3-with-adapter", image=namespace))
        name = world.apply(serving, manifest)
        world.await_condition(serving, name, "WorkspaceReady")
        fact = QUESTIONS[0]
        assert world.chat(serving, name, fact.question) == fact.answer
        pod = _serving_pod(world, serving)
        world.apply(serving, manifest.replace('strength: "1.0"', 'strength: "0.0"'))
        until(lambda: world.chat(serving, name, fact.question) == facts.UNKNOWN, what="an adapter of no strength")
        assert _serving_pod(world, serving) == pod, "an adapter edit restarts nothing"
        world.await_condition(serving, name, "WorkspaceReady")
    finally:
        world.kubectl("delete", "workspaces", "-n", serving, "--all", "--timeout=180s", check=False)
        world.await_nothing_left(serving)
        world.kubectl("delete", "namespace", serving, "--wait=false")


def test_with_serving_switched_off_the_nodes_go_as_soon_as_the_adapter_is_pushed(world, namespace):
    name = world.apply(namespace, _not_served(world.manifest("tuning-phi-3", image=namespace)))
    world.await_condition(namespace, name, "WorkspaceSucceeded")
    until(lambda: not world.left(namespace).get("pools"), what="no pool", seconds=60)
    until(lambda: world.condition(namespace, name, "ResourceReady")["reason"] == "Released", what="a release told")
    assert world.condition(namespace, name, "WorkspaceReady")["status"] == "True"
    assert world.kube.get(clusters.SERVICE, name, namespace) is None
    assert world.status(namespace, name)["nodes"]["billedSeconds"] > 0

    # The same wish again, by a new Workspace: the registry has it, so no node is bought.
    world.delete(namespace, name)
    bought = world.pools_ever(namespace)
    world.apply(namespace, _not_served(world.manifest("tuning-phi-3", image=namespace)))
    world.await_condition(namespace, name, "WorkspaceSucceeded")
    assert world.pools_ever(namespace) == bought


def _other_data_is_learnt_on_the_same_node(world, namespace, manifest):
    """Its one GPU goes from the server to the training and back."""
    name = world.apply(namespace, manifest)
    until(lambda: world.condition(namespace, name, "InferenceReady")["status"] == "False", what="the server's end")
    world.await_condition(namespace, name, "WorkspaceReady")
    assert world.status(namespace, name)["workflow"]["attempt"] == 2
    assert world.pools_ever(namespace) == 1
    assert world.chat(namespace, name, QUESTIONS[0].question) == QUESTIONS[0].answer


def _not_served(manifest):
    return manifest.replace("metadata:\n", 'metadata:\n  annotations:\n    kaito.sh/serve: "false"\n', 1)


def _with_pull_secret(manifest):
    """The registry here wants a password for pulling too; on AKS the kubelet's identity may do without."""
    line = next(line for line in manifest.splitlines() if line.strip().startswith("image:"))
    indent = " " * (len(line) - len(line.lstrip()))
    return manifest.replace(line, f"{line}\n{indent}imagePullSecrets: [acr-push]")


def _serving_pod(world, namespace):
    found = world.kube.items(clusters.POD, namespace, labels="kaito.sh/role=serving")
    return [(pod["metadata"]["name"], pod["status"]["containerStatuses"][0]["restartCount"]) for pod in found]


def _files(world, image):
    """Names in an image's layers."""
    with tempfile.TemporaryDirectory() as folder:
        world.inside("skopeo", "copy", "--quiet", f"docker://{image}", f"dir:{folder}")
        names = set()
        manifest = json.loads((Path(folder) / "manifest.json").read_text())
        for layer in manifest["layers"]:
            with tarfile.open(Path(folder) / layer["digest"].removeprefix("sha256:")) as tar:
                names |= set(tar.getnames())
        return names
