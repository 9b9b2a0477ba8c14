"""Anything may be killed at any moment: the next run goes on from there."""

import time

from tests.cluster.simulators.content import facts
from tests.e2e.world import OPERATOR, until

FACT = facts.FACTS[0]


def kill_the_watcher(world):
    """kill -9, pod and all: a container that is killed five times would be restarted later and later."""
    chosen = ["-n", OPERATOR, "-l", "app.kubernetes.io/name=kaito-hera"]
    world.kubectl("delete", "pod", *chosen, "--grace-period=0", "--force", "--wait=false")


def test_the_watcher_killed_in_each_phase_and_argo_once(world, namespace):
    name = world.apply(namespace, world.manifest("fine-tuning-phi-3", image=namespace))
    kill_the_watcher(world)
    for step in ("preflight", "provision-nodes", "await-nodes", "train"):
        world.await_workflow_step(namespace, step)
        kill_the_watcher(world)
    world.kubectl("delete", "pod", "-n", "argo", "-l", "app=workflow-controller", "--grace-period=0", "--force")
    world.await_workflow_step(namespace, "roll-out", seconds=300)
    kill_the_watcher(world)
    world.await_condition(namespace, name, "WorkspaceReady", seconds=300)
    assert world.chat(namespace, name, FACT.question) == FACT.answer
    assert world.pools_ever(namespace) == 1
    assert world.status(namespace, name)["workflow"]["attempt"] == 1, "nothing had to be tried again"


def test_deleted_while_argo_is_down_everything_billable_goes_all_the_same(world, namespace):
    name = world.apply(namespace, world.manifest("inference-phi-3"))
    world.await_step(namespace, name, "await-nodes")
    until(lambda: world.left(namespace).get("nodes"), what="a node", seconds=60)
    world.kubectl("scale", "deployment", "-n", "argo", "workflow-controller", "--replicas=0")
    try:
        began = time.monotonic()
        world.delete(namespace, name, seconds=200)
        assert world.pools(namespace) == []
        assert time.monotonic() - began > 20, "Argo did it after all"
    finally:
        world.kubectl("scale", "deployment", "-n", "argo", "workflow-controller", "--replicas=1")
        world.kubectl("rollout", "status", "deployment", "-n", "argo", "workflow-controller", "--timeout=60s")
