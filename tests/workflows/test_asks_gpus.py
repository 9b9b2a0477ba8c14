"""How many of a node's GPUs a tuning pod gets."""

import pytest

from kaito_hera import nodes
from kaito_hera.nodes.byo import ByoProvider
from tests import making
from workflows.asks import tuning as asks

TWO, FOUR = "Standard_NC48ads_A100_v4", "Standard_NC96ads_A100_v4"


def placed(partition=None, size=TWO):
    made = making.tuning()
    made["resource"] |= {"instanceType": size} | ({"partition": partition} if partition else {})
    return ByoProvider(None).placement(nodes.wanted(making.parsed(made)))


@pytest.mark.parametrize(
    ("placement", "gpus"),
    [
        pytest.param(placed(), {"nvidia.com/gpu": "2"}, id="all"),
        pytest.param(placed(size=""), {"nvidia.com/gpu": "1"}, id="nobody-knows-how-many"),
        pytest.param(placed({"mode": "accelerator", "count": 3}, FOUR), {"nvidia.com/gpu": "3"}, id="so-many"),
        pytest.param(placed({"mode": "mig", "profile": "1g.10gb"}), {"nvidia.com/mig-1g.10gb": "1"}, id="a-slice"),
    ],
)
def test_training_takes_all_gpus_of_the_size_or_those_that_were_asked_for(placement, gpus):
    assert placement.all_limits == gpus
    shared = [mount.path for mount in asks.exchange(placement)]
    assert shared == (["/dev/shm"] if int(next(iter(gpus.values()))) > 1 else [])
    assert all(mount.source == {"emptyDir": {"medium": "Memory"}} for mount in asks.exchange(placement))
