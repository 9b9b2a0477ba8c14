"""What several GPUs of a node must hold to serve one model, by layers or by vLLM, and how many of them can share it."""

import pytest

import presets
from kaito_hera import loads, offers, sizing
from kaito_hera.settings import Settings
from presets import memory
from tests import making

AKS = Settings(node_provider="aks")


def serving(preset, size):
    made = making.inference()
    made["resource"] |= {"instanceType": size}
    made["inference"]["preset"] = {"name": preset}
    return made


def test_what_no_single_gpu_holds_is_held_by_those_of_a_node_and_served_slowly():
    made = serving("llama-3.3-70b-instruct", "Standard_NC24ads_A100_v4")
    needs = (loads.serve(presets.preset("llama-3.3-70b-instruct")),)
    [finding] = sizing.memory_findings(making.parsed(made), AKS, needs)
    assert "take Standard_NC80adis_H100_v5" in finding.remedy
    made["resource"]["instanceType"] = "Standard_NC96ads_A100_v4"
    [finding] = sizing.memory_findings(making.parsed(made), AKS, needs)
    assert not finding.fatal
    assert "needs 150.1 GiB; so its layers go onto 4 GPUs, and requests are answered one at a time" in str(finding)
    by_vllm = (loads.serve(presets.preset("llama-3.3-70b-instruct"), loads.Server(vllm=True)),)
    assert sizing.memory_findings(making.parsed(made), AKS, by_vllm) == []


def test_one_gpu_is_taken_where_it_holds_what_several_could_divide():
    demand = loads.serve(presets.preset("phi-4"))
    assert [demand.taken(gib, 4) for gib in (76.0, 33.0, 32.9, 10.0)] == [1, 1, 4, 4]
    assert [demand.way(gib, 4) for gib in (33.0, 10.8, 10.6)] == [0, 0, None]
    assert demand.way(32.9, 1) is None
    assert [size.gpus for size in offers.able((demand,))] == [size.gpus for size in offers.holders(demand)]


def test_the_share_of_each_gpu_is_what_the_layers_can_be_laid_out_to():
    """tests/serving/test_placement.py holds the layout against the same bound: a share and the largest unit."""
    model = presets.preset("llama-3.3-70b-instruct")
    demand = loads.serve(model)
    four = demand.gib_of(4) / loads.MARGIN
    assert four == pytest.approx(demand.need.parts["runtime"] + demand.spread / 4 + memory.uneven(model))
    assert memory.uneven(model) >= 2 * 128_256 * 8192 / 2**30


def test_vllm_is_judged_by_the_gpus_that_can_share_the_model():
    made = serving("phi-4", "Standard_NC64as_T4_v3")
    by_vllm = loads.serve(presets.preset("phi-4"), loads.Server(vllm=True))
    assert (by_vllm.most(4), by_vllm.way(10.8, 4), by_vllm.way(10.8, 2)) == (2, None, None)
    [finding] = sizing.memory_findings(making.parsed(made), AKS, (by_vllm,))
    assert finding.fatal
    assert f"needs {by_vllm.gib_of(2):.1f} GiB" in str(finding)
    made["resource"]["instanceType"] = "Standard_NC96ads_A100_v4"
    [finding] = sizing.memory_findings(making.parsed(made), AKS, (by_vllm,))
    assert not finding.fatal
    assert "vLLM divides phi-4 among 2 of 4 GPUs, the others are paid and idle" in str(finding)
    made["resource"]["instanceType"] = "Standard_NC48ads_A100_v4"
    assert sizing.memory_findings(making.parsed(made), AKS, (by_vllm,)) == []


def test_what_vllm_is_told_to_divide_a_model_among_has_to_be_there():
    made = serving("llama-3.1-8b-instruct", "Standard_NC48ads_A100_v4")
    four = loads.serve(presets.preset("llama-3.1-8b-instruct"), loads.Server(gpus=4, vllm=True))
    [finding] = sizing.memory_findings(making.parsed(made), AKS, (four,))
    assert finding.fatal
    assert "tensor-parallel-size: 4 in inference.config is more than the 2 GPUs" in str(finding)


def test_keys_and_values_are_held_by_each_gpu_that_shares_a_head():
    few, many = (
        loads.serve(presets.preset(name), loads.Server(context=100_000, vllm=True))
        for name in ("nvidia/NVIDIA-Nemotron-3-Super-120B-A12B-BF16", "llama-3.3-70b-instruct")
    )
    for demand, parts in ((few, 2), (many, 8)):
        weights, cache = demand.need.parts["weights"] / 8, demand.need.parts["cache"] / parts
        each = weights + cache + demand.need.parts["runtime"] + demand.several
        assert demand.gib_of(8) == pytest.approx(each * loads.MARGIN)
