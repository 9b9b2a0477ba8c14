"""Anything may be killed at any moment: the next run goes on from there."""

import json

import yaml

from kaito_hera import cluster as clusters
from kaito_hera import names
from tests.cluster.simulators.content import facts
from tests.e2e.world import OPERATOR, until

FACT = facts.FACTS[0]


def kill_the_watcher(world):
    """kill -9, pod and all: a container that is killed five times would be restarted later and later."""
    chosen = ["-n", OPERATOR, "-l", "app.kubernetes.io/name=kaito-hera"]
    world.kubectl("delete", "pod", *chosen, "--grace-period=0", "--force", "--wait=false")


def release_jobs(world, namespace):
    """What gives nodes back when Argo does not."""
    return world.kube.items(clusters.JOB, OPERATOR, labels=f"{names.ROLE}=release,{names.NAMESPACE}={namespace}")


def test_the_watcher_killed_in_each_phase_and_argo_once(world, namespace):
    name = world.apply(namespace, world.manifest("fine-tuning-phi-3", image=namespace))
    kill_the_watcher(world)
    for step in ("preflight", "provision-nodes", "await-nodes", "train"):
        world.await_step(namespace, step)
        kill_the_watcher(world)
    world.kubectl("delete", "pod", "-n", "argo", "-l", "app=workflow-controller", "--grace-period=0", "--force")
    world.await_step(namespace, "roll-out", seconds=300)
    kill_the_watcher(world)
    world.await_condition(namespace, name, "WorkspaceReady", seconds=300)
    assert world.chat(namespace, name, FACT.question) == FACT.answer
    assert world.pools_ever(namespace) == 1
    assert world.status(namespace, name)["workflow"]["attempt"] == 1, "nothing had to be tried again"


def test_an_evicted_training_goes_on_from_the_registry_on_the_next_kind_of_node(world, namespace):
    text = "training_config: {TrainingArguments: {learning_rate: 0.005, num_train_epochs: 40}}"
    config = {"metadata": {"name": "long", "namespace": namespace}, "data": {"training_config.yaml": text}}
    world.kube.create(clusters.CONFIG_MAP, config)
    workspace = yaml.safe_load(world.manifest("fine-tuning-phi-3", image=namespace))
    workspace["metadata"]["annotations"] = {"kaito.sh/serve": "false"}
    workspace["resource"]["capacity"] = ["spot", "on-demand"]
    workspace["tuning"] |= {"config": "long", "checkpoint": {"intervalSeconds": 10}}
    name = world.apply(namespace, yaml.safe_dump(workspace))
    until(lambda: tuning(world, namespace, name).get("step", 0) > 20, what="some steps", seconds=240)
    assert world.status(namespace, name)["nodes"]["candidate"].endswith("/spot")
    evict(world, namespace)
    world.await_condition(namespace, name, "WorkspaceSucceeded", seconds=400)
    status = world.status(namespace, name)
    assert status["workflow"]["attempt"] == 2
    assert status["nodes"]["candidate"].endswith("/on-demand")
    assert tuning(world, namespace, name)["resumedFromStep"] >= 20


def tuning(world, namespace, name):
    return world.status(namespace, name).get("tuning") or {}


def evict(world, namespace):
    """What a node does that is drained: the pod hears SIGTERM and has its grace period."""
    (pod,) = world.kube.items(clusters.POD, namespace, labels="kaito.sh/role=tuning")
    name = pod["metadata"]["name"]
    asked = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": namespace}}
    path = f"/api/v1/namespaces/{namespace}/pods/{name}/eviction"
    world.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(asked))


def test_deleted_while_argo_is_down_everything_billable_goes_all_the_same(world, namespace):
    name = world.apply(namespace, world.manifest("inference-phi-3"))
    world.await_step(namespace, "await-nodes")
    until(lambda: world.left(namespace).get("nodes"), what="a node", seconds=60)
    world.kubectl("scale", "deployment", "-n", "argo", "workflow-controller", "--replicas=0")
    try:
        world.delete(namespace, name, wait=False)
        until(lambda: release_jobs(world, namespace), what="a plain Job that releases", seconds=180, pause=0.1)
        until(lambda: not world.workspace(namespace, name), what=f"the end of {namespace}/{name}")
        assert world.pools(namespace) == []
    finally:
        world.kubectl("scale", "deployment", "-n", "argo", "workflow-controller", "--replicas=1")
        world.kubectl("rollout", "status", "deployment", "-n", "argo", "workflow-controller", "--timeout=60s")
