"""How many of a node's GPUs a tuning pod gets, and what it is told of their price."""

import pytest

from kaito_hera import names, nodes
from kaito_hera.nodes.byo import ByoProvider
from kaito_hera.run import Run
from kaito_hera.settings import Settings
from tests import making
from tests.kaito_hera.observing import AKS
from tuning.config import TuningConfig
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


@pytest.mark.parametrize(
    ("candidate", "settings", "price"),
    [
        ("", AKS, 3.673),
        (f"{TWO}/on-demand", AKS, 7.346),
        (f"{TWO}/spot", AKS, None),
        ("", Settings(), None),
    ],
)
def test_the_pod_knows_what_its_waiting_costs(candidate, settings, price):
    made = making.tuning()
    if candidate:
        del made["resource"]["instanceType"]
        made["resource"] |= {"instanceTypes": [TWO, FOUR], "capacity": ["spot", "on-demand"]}
    run = Run(None, making.parsed(made), settings, ByoProvider(None), candidate)
    asked = TuningConfig(
        workspace="team/w",
        preset="p",
        model={"id": "a/b", "revision": "main"},
        method="lora",
        training={},
        input={"urls": ["https://a.b/c"]},
        output={"image": "reg.io/a:1"},
        intent="i",
    )
    template = asks.task_of(run, 1, asked, run.placement()).template
    told = TuningConfig.model_validate_json(template["metadata"]["annotations"][names.CONFIG])
    assert told.usd_per_hour == price
