"""Among how many GPUs vLLM can divide each model that it serves; its assertions are written out here once more."""

import pytest

import presets
from presets.facts import Shape

SERVED = sorted(name for name, model in presets.presets().items() if "vllm" in model.runtimes)
FEWER = {
    "falcon-7b": (1, 1, 1),  # 71 heads
    "falcon-7b-instruct": (1, 1, 1),
    "phi-3-medium-4k-instruct": (2, 2, 2),  # 40 heads, 10 of keys and values; 5 do not divide the vocabulary
    "phi-3-medium-128k-instruct": (2, 2, 2),
    "phi-4": (2, 2, 2),
    "qwen2.5-coder-7b-instruct": (2, 4, 4),  # 28 heads
    "Qwen/Qwen3.6-27B": (2, 4, 8),
    "MiniMaxAI/MiniMax-M2.7": (2, 4, 4),  # 1536 in 8 parts are no whole blocks of 128
    "Qwen/Qwen3.6-35B-A3B-FP8": (2, 4, 4),
}


@pytest.mark.parametrize("name", SERVED)
def test_the_most_of_2_4_and_8_gpus(name):
    taken = tuple(presets.shares(presets.splits(presets.preset(name).shape), gpus) for gpus in (2, 4, 8))
    assert taken == FEWER.get(name, (2, 4, 8))


@pytest.mark.parametrize("name", SERVED)
def test_what_is_taken_passes_the_assertions_of_vllm(name):
    shape = presets.preset(name).shape
    for gpus in presets.splits(shape):
        assert shape.heads % gpus == 0
        if shape.kv_heads >= gpus:
            assert shape.kv_heads % gpus == 0
        else:
            assert gpus % shape.kv_heads == 0
        assert (shape.intermediate or 0) % gpus == 0
        assert -(-(shape.vocabulary or 0) // 64) * 64 % gpus == 0


def test_numbers_that_are_not_known_are_taken_as_powers_of_two():
    assert presets.splits(None) == (1, 2, 4, 8, 16)
    assert presets.splits(Shape(layers=2, hidden=60, heads=60, kv_heads=60)) == (1, 2, 4)


@pytest.mark.parametrize(
    ("more", "pieces"),
    [
        pytest.param({}, None, id="dense"),
        pytest.param({"moe_intermediate_size": 768}, 768, id="experts"),
        pytest.param({"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}, 12, id="fp8"),
        pytest.param({"quantization_config": {"quant_method": "gptq", "group_size": 128}}, 12, id="gptq"),
        pytest.param({"quantization_config": {"quant_method": "gptq", "group_size": -1}}, None, id="one-group"),
        pytest.param({"linear_num_key_heads": 16, "linear_num_value_heads": 24}, 8, id="hybrid"),
        pytest.param({"moe_intermediate_size": 100, "quantization_config": {"group_size": 64}}, 1, id="no-blocks"),
    ],
)
def test_parts_that_a_config_tells(more, pieces):
    text = {"num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 8, "intermediate_size": 1536}
    assert presets.shape("a/b", text | more).pieces == pieces
    quantised = {name: more[name] for name in more if name == "quantization_config"}
    inner = text | {name: more[name] for name in more if name not in quantised}
    assert presets.shape("a/b", {"text_config": inner, **quantised}).pieces == pieces
