"""Deleting at any time leaves no pool, no node, no Workflow and no Job; the namespace fixture looks after each test."""

import pytest


@pytest.mark.parametrize("moment", ["provision-nodes", "await-nodes", "train"])
def test_delete_while_it_is_under_way(world, namespace, moment):
    name = world.apply(namespace, world.manifest("fine-tuning-phi-3", image=namespace))
    world.await_step(namespace, moment)
    world.delete(namespace, name)
    assert world.pools(namespace) == []


def test_delete_the_whole_namespace_while_serving(world):
    namespace = world.new_namespace()
    name = world.apply(namespace, world.manifest("inference-phi-3"))
    world.await_condition(namespace, name, "WorkspaceReady")
    assert world.pools(namespace)
    world.kubectl("delete", "namespace", namespace, "--timeout=180s")
    world.await_nothing_left(namespace)
