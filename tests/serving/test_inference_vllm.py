"""What of an inference_config.yaml is handed on to vLLM, and that vLLM's release has arguments of these names."""

import json
from pathlib import Path

import pytest

from serving import inference_vllm
from serving.inference_config import InferenceConfig, parse

RECORDED = json.loads((Path(__file__).parent / "vllm" / "recorded.json").read_text())


def parsed(text):
    return parse(f"vllm: {{{text}}}", "vllm")


@pytest.mark.parametrize(
    ("written", "handed"),
    [
        ("gpu-memory-utilization: 0.84", {"gpu_memory_utilization": 0.84}),
        ("gpu_memory_utilization: '0.84', max-num-seqs: '64'", {"gpu_memory_utilization": 0.84, "max_num_seqs": 64}),
        ("enforce-eager: 'true'", {"enforce_eager": True}),
        ("no-enable-prefix-caching: true", {"enable_prefix_caching": False}),
        ("max-lora-rank: 128, enable-lora: false", {"max_lora_rank": 128, "enable_lora": False}),
        ("kv-cache-dtype: fp8, cpu-offload-gb: 0, seed: 0", {"kv_cache_dtype": "fp8", "cpu_offload_gb": 0, "seed": 0}),
    ],
)
def test_values_are_handed_on_as_vllm_types_them(written, handed):
    assert parsed(written) == (InferenceConfig(vllm=handed), ())


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("gpu-memory-utilization: 1.5", "vllm.gpu-memory-utilization: 1.5 is no number above 0 to 1"),
        ("gpu-memory-utilization: 0", "is no number above 0"),
        ("gpu-memory-utilization: true", "is no number"),
        ("cpu-offload-gb: -1", "is no number from 0 on"),
        ("max-num-seqs: 0", "is no whole number from 1 on"),
        ("max-num-seqs: 1.5", "is no whole number"),
        ("max-lora-rank: 24", "write one of 1, 8, 16, 32"),
        ("enforce-eager: maybe", "is neither true nor false"),
        ("kv-cache-dtype: int3", "is not one of auto"),
        ("max-num-seq: 4", "did you mean max-num-seqs"),
    ],
)
def test_bad_values_name_key_value_and_way_out(written, words):
    with pytest.raises(ValueError, match=words.replace(".", r"\.")):
        parsed(written)


def test_what_both_engines_honour_stays_typed():
    config, warnings = parsed("max-model-len: 4096, dtype: half, max-num-seqs: 8")
    assert config == InferenceConfig(max_model_len=4096, dtype="float16", vllm={"max_num_seqs": 8})
    assert warnings == ()


def test_what_is_not_handed_on_is_a_warning_and_what_changes_who_may_ask_is_refused():
    config, warnings = parsed("swap-space: 8, speculative-config: '{}'")
    assert config == InferenceConfig()
    assert [warning.partition(":")[2] for warning in warnings] == [
        " vllm.swap-space: 8 has no effect, it is not among the options that are handed on to vLLM",
        " vllm.speculative-config: '{}' has no effect, it is not among the options that are handed on to vLLM",
    ]
    with pytest.raises(ValueError, match="cannot be honoured"):
        parsed("quantization: awq")


def test_our_own_engine_takes_none_of_them():
    config, warnings = parse("vllm: {gpu-memory-utilization: 0.84, max-num-seqs: 4}")
    assert config == InferenceConfig()
    assert len(warnings) == 2


def test_every_option_is_an_argument_of_the_recorded_release():
    known = RECORDED["classes"]["vllm/engine/arg_utils.py"]["EngineArgs"]["fields"]
    assert {name.replace("-", "_") for name in inference_vllm.OPTIONS} <= set(known)
