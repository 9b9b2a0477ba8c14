"""A node whose disk is too small for what is tuned is found out before anything is downloaded."""

import pytest

from kaito_hera import errors, models, nodes
from kaito_hera.nodes import disk, ordering, readiness
from kaito_hera.nodes.byo import ByoProvider
from kaito_hera.run import Run
from kaito_hera.settings import Settings
from kaito_hera.status import Refusal
from tests import making
from tests.kaito_hera.nodes.conftest import order
from tests.kaito_hera.nodes.test_drivers import Standing


def with_disk(said, name="node-1"):
    node = making.node(name=name, labels={"app": "phi"})
    node["status"]["allocatable"]["ephemeral-storage"] = said
    return node


@pytest.mark.parametrize(
    ("said", "fits"),
    [
        ("10737418240", True),
        ("10737418239", False),
        ("10Gi", True),
        ("10G", False),
        ("11G", True),
        ("10485760Ki", True),
        ("10485759Ki", False),
        ("1Ti", True),
        ("1P", True),
        ("1k", False),
        ("", True),
        ("much", True),
    ],
)
def test_a_disk_is_read_as_kubernetes_writes_it(said, fits):
    assert (disk.refused(with_disk(said), 10.0) == "") == fits
    assert disk.refused(with_disk(said), 0.0) == ""


def run(workspace, said):
    cluster = Standing([with_disk(said)])
    return Run(cluster, making.parsed(workspace), Settings(node_steady_seconds=0), ByoProvider(cluster))


def test_a_disk_that_the_weights_do_not_fit_is_not_waited_for():
    assert readiness.await_ready(run(making.tuning(), "100Gi"), ("node-1",)) == ["node-1"]
    small = r"^node node-1 has 5\.0 GiB of disk for pods \(ephemeral-storage: 5Gi\); the model's weights alone are 7\.1"
    with pytest.raises(errors.InsufficientDiskError, match=small + ".*take a size with more disk"):
        readiness.await_ready(run(making.tuning(), "5Gi"), ("node-1",))
    several = making.tuning()
    several["resource"] |= {"instanceTypes": [several["resource"].pop("instanceType"), "Standard_ND96isr_H100_v5"]}
    with pytest.raises(errors.UnsupportedNodeError, match=small):
        readiness.await_ready(run(several, "5Gi"), ("node-1",))


def test_sizes_that_were_all_refused_for_their_disk_end_so():
    several = making.tuning()
    several["resource"] |= {"instanceTypes": ["Standard_NC24ads_A100_v4", "Standard_ND96isr_H100_v5"]}
    del several["resource"]["instanceType"]
    asked = run(several, "5Gi")
    with pytest.raises(errors.UnsupportedNodeError) as said:
        readiness.await_ready(asked, ("node-1",))
    known = [Refusal(candidate=each.candidate, reason=str(said.value), unfit=True) for each in asked.candidates]
    way = "edit resource.instanceTypes, or annotate kaito.sh/retry once nodes were changed$"
    with pytest.raises(errors.InsufficientDiskError, match=rf"none of 2 kinds of node can be used: .*5Gi.*; {way}"):
        ordering.order(asked, known=tuple(known))
    known[0] = Refusal(candidate=known[0].candidate, reason="node x has NVIDIA driver 535", unfit=True)
    with pytest.raises(errors.UnsupportedGPUError, match=way):
        ordering.order(asked, known=tuple(known))


def test_a_server_and_a_model_out_of_an_image_are_not_judged_by_it():
    image = making.tuning()
    image["tuning"]["preset"]["presetOptions"] = {"image": "reg.io/models/own:1"}
    for workspace in (making.inference(), image):
        assert readiness.await_ready(run(workspace, "5Gi"), ("node-1",)) == ["node-1"]


def test_of_brought_nodes_those_with_room_are_taken():
    want = nodes.wanted(making.parsed(making.tuning()))
    assert want.weights_gib == models.find(making.parsed(making.tuning())).weights_gib
    cluster = Standing([with_disk("5Gi", "a"), with_disk("50Gi", "b")])
    assert order(ByoProvider(cluster), want).hostnames == ("b",)
