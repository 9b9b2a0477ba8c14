"""Several kinds of node would do, and the nodes are there already."""

import pytest

from kaito_hera import errors
from kaito_hera.nodes import ordering
from kaito_hera.nodes.byo import ByoProvider
from kaito_hera.run import Run
from kaito_hera.settings import Settings
from tests import making
from tests.kaito_hera.nodes.test_byo import FOUR_GPUS, ONE_GPU, Cluster, gpu_node, gpu_pod

SPOT = {"kubernetes.azure.com/scalesetpriority": "spot"}


class Whole(Cluster):
    """With single objects too, and pods by their labels."""

    def get(self, kind, name, namespace=None):
        return next((obj for obj in self._objects[kind] if obj["metadata"]["name"] == name), None)


def run_of(found, pods=(), *, sizes=(ONE_GPU, FOUR_GPUS), capacity=()):
    workspace = making.inference()
    del workspace["resource"]["instanceType"]
    workspace["resource"] |= {"instanceTypes": list(sizes), "capacity": list(capacity)}
    cluster = Whole(found, pods)
    return Run(cluster, making.parsed(workspace), Settings(), ByoProvider(cluster))


def test_the_first_size_of_which_nodes_are_free_is_taken():
    found = ordering.order(run_of([gpu_node("a"), gpu_node("b", size=FOUR_GPUS, gpus=4)], [gpu_pod("a")]))
    assert (found.order.candidate, found.order.hostnames) == (FOUR_GPUS, ("b",))
    [refusal] = found.refused
    assert refusal.candidate == ONE_GPU
    assert "a has 0 free GPUs, 1 are needed" in refusal.reason
    assert f"b is a {FOUR_GPUS}, not a {ONE_GPU}" in refusal.reason


def test_where_the_workspace_works_already_it_stays_whichever_size_is_free_by_now():
    nodes_there = [gpu_node("a"), gpu_node("b", size=FOUR_GPUS, gpus=4)]
    own = gpu_pod("b", uid=making.UID)
    assert ordering.order(run_of(nodes_there, [own])).order.hostnames == ("b",)


def test_spot_is_taken_where_it_is_asked_for_first():
    nodes_there = [gpu_node("usual"), gpu_node("cheap", labels=SPOT)]
    found = ordering.order(run_of(nodes_there, sizes=[], capacity=["spot", "on-demand"]))
    assert (found.order.candidate, found.order.hostnames) == ("spot", ("cheap",))


def test_where_nothing_fits_every_kind_is_named():
    with pytest.raises(errors.NoNodesMatchError) as refused:
        ordering.expect(run_of([]))
    assert str(refused.value).startswith(f"none of 2 kinds of node can be had: {ONE_GPU}: resource.labelSelector")
    assert f"; {FOUR_GPUS}: resource.labelSelector" in str(refused.value)
