"""Presets made from a model's config.json; the configs are those of the hub, cut to what decides."""

import ast
import functools
import importlib.util
import random
from pathlib import Path

import pytest

import presets
from presets import hub, memory

GIB = 2**30
LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}
FALCON_40B = {
    "architectures": ["FalconForCausalLM"],
    "model_type": "falcon",
    "hidden_size": 8192,
    "num_hidden_layers": 60,
    "num_attention_heads": 128,
    "num_kv_heads": 8,
    "multi_query": True,
    "new_decoder_architecture": True,
    "vocab_size": 65024,
}
FALCON_7B = FALCON_40B | {
    "hidden_size": 4544,
    "num_hidden_layers": 32,
    "num_attention_heads": 71,
    "num_kv_heads": 71,
    "new_decoder_architecture": False,
}
GPT_2 = {
    "architectures": ["GPT2LMHeadModel"],
    "model_type": "gpt2",
    "n_embd": 768,
    "n_layer": 12,
    "n_head": 12,
    "n_positions": 1024,
    "vocab_size": 50257,
}
GEMMA_3 = {
    "architectures": ["Gemma3ForConditionalGeneration"],
    "model_type": "gemma3",
    "text_config": {
        "model_type": "gemma3_text",
        "hidden_size": 5376,
        "intermediate_size": 21504,
        "num_hidden_layers": 62,
        "num_attention_heads": 32,
        "num_key_value_heads": 16,
        "head_dim": 128,
        "sliding_window": 1024,
        "vocab_size": 262208,
        "max_position_embeddings": 131072,
        "layer_types": (["sliding_attention"] * 5 + ["full_attention"]) * 10 + ["sliding_attention"] * 2,
    },
    "vision_config": {"hidden_size": 1152},
}
DEEPSEEK = {
    "architectures": ["DeepseekV3ForCausalLM"],
    "model_type": "deepseek_v3",
    "hidden_size": 7168,
    "intermediate_size": 18432,
    "num_hidden_layers": 61,
    "num_attention_heads": 128,
    "num_key_value_heads": 128,
    "kv_lora_rank": 512,
    "qk_rope_head_dim": 64,
    "n_routed_experts": 256,
    "vocab_size": 129280,
    "max_position_embeddings": 163840,
    "quantization_config": {"quant_method": "fp8"},
}
MIXTRAL = LLAMA | {
    "architectures": ["MixtralForCausalLM"],
    "model_type": "mixtral",
    "num_local_experts": 8,
    "vocab_size": 32000,
    "max_position_embeddings": 32768,
}


def made(config, gib, **changed):
    """The preset of a model with that much of weights; a key that is None is left out."""
    whole = {key: value for key, value in (config | changed).items() if value is not None}
    return presets.from_hub("someone/something", "f" * 40, whole, int(gib * GIB))


@pytest.mark.parametrize(
    ("name", "config", "gib"),
    [
        ("llama-3.1-8b-instruct", LLAMA, 14.96),
        ("falcon-40b", FALCON_40B, 77.93),
        ("falcon-7b", FALCON_7B, 13.44),
        ("gemma-3-27b-instruct", GEMMA_3, 51.1),
        ("deepseek-r1-0528", DEEPSEEK, 641.3),
    ],
)
def test_a_config_gives_what_the_file_of_that_model_says(name, config, gib):
    found, known = made(config, gib), presets.preset(name)
    for fact in ("architecture", "context_limit", "weights_gib", "cache_bytes_per_token", "quantisation", "tunable"):
        assert getattr(found, fact) == getattr(known, fact), fact
    for fact in ("kind", "layers", "hidden", "heads", "kv_heads", "head_size", "gated", "full_layers", "window"):
        assert getattr(found.shape, fact) == getattr(known.shape, fact), fact
    assert set(known.runtimes) == set(found.runtimes)
    assert (found.name, found.hub_id, found.revision, found.license) == (
        "someone/something",
        "someone/something",
        "f" * 40,
        None,
    )
    assert memory.serving(found).gib == pytest.approx(memory.serving(known).gib)


def test_a_model_of_a_known_family_is_sized_and_tuned_as_the_one_in_the_catalogue():
    found, known = made(LLAMA, 14.96), presets.preset("llama-3.1-8b-instruct")
    assert found.lora_targets == known.lora_targets
    assert found.limits == ()
    assert (
        memory.tuning(found, "qlora", tokens=2048, rank=8).gib == memory.tuning(known, "qlora", tokens=2048, rank=8).gib
    )


def test_an_old_config_with_other_names_is_read_too():
    found = made(GPT_2, 0.23)
    assert (found.shape.layers, found.shape.hidden, found.shape.heads, found.context_limit) == (12, 768, 12, 1024)
    assert found.cache_bytes_per_token == 4 * 12 * 768
    assert found.runtimes == ("transformers",)
    assert not found.tunable, "its linear layers are not known here"


@pytest.mark.parametrize(("gib", "tied"), [(2.30, True), (2.80, False)])
def test_tied_embeddings_are_told_from_the_weights_where_the_config_is_silent(gib, tied):
    small = {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16}
    found = made(LLAMA, gib, **small, tie_word_embeddings=None)
    assert found.shape.tied_embeddings is tied
    assert found.tunable


def test_what_shape_and_weights_tell_differently_cannot_be_tuned():
    found = made(LLAMA, 20.0)
    assert not found.tunable
    assert "20.0 GiB" in found.limits[0]


def test_weights_of_32_bits_are_served_in_16():
    found = made(LLAMA, 2 * 14.96, torch_dtype="float32")
    assert (found.weights_gib, found.transformers_gib, found.tunable) == (29.92, 14.96, True)
    assert memory.serving(found).gib == pytest.approx(memory.serving(made(LLAMA, 14.96)).gib)


def test_experts_are_no_dense_model():
    found = made(MIXTRAL, 87.0)
    assert (found.shape.kind, found.tunable) == ("experts", False)
    assert made(LLAMA, 14.96, num_experts=0).shape.kind == "dense"


def test_layers_without_attention_keep_nothing():
    types = ["linear_attention", "linear_attention", "linear_attention", "full_attention"] * 8
    found = made(LLAMA, 16.0, architectures=["Qwen3NextForCausalLM"], model_type="qwen3_next", layer_types=types)
    assert (found.shape.kind, found.shape.full_layers, found.shape.window) == ("hybrid", 8, 0)
    assert memory.cache_bytes(found, 1000) == 1000 * found.cache_bytes_per_token / 4


def test_a_config_without_its_numbers_is_served_by_a_guess_on_the_safe_side():
    found = made(LLAMA, 14.96, num_attention_heads=None)
    assert (found.shape, found.cache_bytes_per_token, found.tunable) == (None, None, False)
    assert memory.serving(found).gib > memory.serving(made(LLAMA, 14.96)).gib


def test_a_quantised_model_is_for_vllm_alone_where_the_engine_has_no_kernels():
    awq = {"quantization_config": {"quant_method": "awq", "bits": 4}}
    found = made(LLAMA, 5.3, **awq)
    assert (found.quantisation, found.runtimes, found.tunable) == ("awq", ("vllm",), False)
    assert found.limits == (
        "the transformers runtime has no kernels for its awq weights",
        "cannot be tuned: its weights are stored quantised (awq)",
    )
    assert made(LLAMA, 5.3, quantization_config={"quant_method": "bitsandbytes"}).runtimes == ("transformers", "vllm")


def test_mxfp4_is_unpacked_by_the_engine():
    oss = {"architectures": ["GptOssForCausalLM"], "model_type": "gpt_oss", "num_local_experts": 32, "head_dim": 64}
    found = made(LLAMA, 12.82, **oss, quantization_config={"quant_method": "mxfp4"})
    assert found.transformers_gib >= presets.preset("gpt-oss-20b").transformers_gib


@pytest.mark.parametrize(
    ("config", "gib", "words"),
    [
        pytest.param({}, 1, ["architectures"], id="empty"),
        pytest.param({"architectures": []}, 1, ["architectures"], id="no-architecture"),
        pytest.param({"architectures": "LlamaForCausalLM"}, 1, ["architectures"], id="no-list"),
        pytest.param(LLAMA, 0, ["safetensors"], id="no-weights"),
        pytest.param(LLAMA | {"architectures": ["LlamaForSequenceClassification"]}, 15, ["writes no text"], id="judge"),
        pytest.param({"architectures": ["BertForMaskedLM"], "model_type": "bert"}, 1, ["writes no text"], id="encoder"),
        pytest.param(
            {"architectures": ["BertLMHeadModel"], "model_type": "bert"}, 1, ["bert", "not known"], id="half-a-model"
        ),
        pytest.param(
            {"architectures": ["T5ForConditionalGeneration"], "model_type": "t5"}, 1, ["t5", "known family"], id="t5"
        ),
        pytest.param(
            {"architectures": ["ChatGLMForCausalLM"], "model_type": "chatglm", "auto_map": {"AutoModel": "x.Y"}},
            12,
            ["code of its own"],
            id="own-code",
        ),
        pytest.param(MIXTRAL | {"quantization_config": {"quant_method": "gptq"}}, 24, ["gptq", "16-bit"], id="gptq"),
        pytest.param(LLAMA | {"quantization_config": {"bits": 4}}, 5, ["quant_method"], id="unsaid-quantisation"),
        pytest.param(LLAMA | {"hidden_size": "4096"}, 15, ["hidden_size", "'4096'"], id="text-for-a-number"),
        pytest.param(LLAMA | {"num_hidden_layers": -1}, 15, ["num_hidden_layers", "-1"], id="negative"),
        pytest.param(LLAMA | {"num_hidden_layers": 10**400}, 15, ["num_hidden_layers", "1000"], id="huge"),
        pytest.param(LLAMA | {"architectures": ["x" * 10**6 + "ForCausalLM"]}, 15, ["architectures"], id="long"),
        pytest.param(LLAMA | {"vocab_size": True}, 15, ["vocab_size", "True"], id="bool"),
        pytest.param(LLAMA | {"num_attention_heads": 5000}, 15, ["5000", "4096"], id="more-heads-than-width"),
    ],
)
def test_what_cannot_be_served_is_refused_with_the_models_own_words(config, gib, words):
    with pytest.raises(presets.UnservableError) as refused:
        presets.from_hub("someone/something", None, config, int(gib * GIB))
    for word in ("someone/something", *words):
        assert word in str(refused.value)
    assert len(str(refused.value)) < 500


def test_no_config_breaks_more_than_itself():
    """Whatever stands in a config: there is a preset that can be reckoned with, or it is refused in words."""
    chance = random.Random(4)
    configs = [LLAMA, FALCON_40B, FALCON_7B, GPT_2, GEMMA_3, DEEPSEEK, MIXTRAL]
    keys = sorted({key for config in configs for key in config} | {"layer_types", "num_experts", "dtype", "auto_map"})
    values = [None, 0, 1, -1, 2**40, 2**70, 10**400, 0.5, "x", "", True, [], {}, [1], {"a": 1}, ["full_attention"] * 32]
    outcomes = set()
    for _ in range(3000):
        config = chance.choice(configs) | {chance.choice(keys): chance.choice(values) for _ in range(3)}
        try:
            model = presets.from_hub("someone/something", None, config, chance.choice([1, 10**9, 10**12]))
        except presets.UnservableError:
            outcomes.add("refused")
        else:
            assert memory.serving(model).gib > 0
            assert memory.tuning(model, "qlora", tokens=2048, rank=8).gib > 0
            outcomes.add("made")
    assert outcomes == {"refused", "made"}


@pytest.mark.parametrize("name", ["someone/some-thing_1.5B", "a/b", "Qwen/Qwen9-0.5B"])
def test_a_hub_id_is_an_organisation_and_a_model_that_no_file_describes(name):
    assert presets.is_hub_id(name)


@pytest.mark.parametrize(
    "name",
    [
        "phi-4",
        "microsoft/phi-4",
        "MICROSOFT/PHI-4",
        "a",
        "a/b/c",
        "/b",
        "a/",
        "../b",
        "a/..",
        "a/b--c",
        "a b/c",
        "a/b\n",
        "ä/b",
        "http://a/b",
        "a/" + "b" * 97,
    ],
)
def test_anything_else_is_no_hub_id(name):
    assert not presets.is_hub_id(name)


@functools.cache
def of_transformers():
    """model_type -> class, of causal language models and of those that read images, in the pinned transformers."""
    spec = importlib.util.find_spec("transformers")
    if spec is None:
        pytest.skip("transformers is not installed")
    source = (Path(spec.origin).parent / "models/auto/modeling_auto.py").read_text()
    found = {}
    for statement in ast.parse(source).body:
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Call) and statement.value.args:
            elements = getattr(statement.value.args[0], "elts", [])
            pairs = [element for element in elements if isinstance(element, ast.Tuple)]
            found[statement.targets[0].id] = dict(ast.literal_eval(pair) for pair in pairs)
    return found["MODEL_FOR_CAUSAL_LM_MAPPING_NAMES"], found["MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES"]


def test_the_families_are_those_of_the_pinned_transformers():
    causal, _ = of_transformers()
    listed = presets.catalogue.load(Path(presets.__file__).parent / "architectures.yaml")
    assert sorted(listed["served"] + listed["not_served"]) == sorted(causal)
    assert set(hub.families().linears) <= set(listed["served"])


@pytest.mark.parametrize("name", sorted(presets.presets()))
def test_the_engine_serves_what_transformers_loads(name):
    causal, images = of_transformers()
    model = presets.preset(name)
    types = {kind for mapping in (causal, images) for kind, cls in mapping.items() if cls == model.architecture}
    loads = bool(types & hub.families().served) and model.quantisation in {None, "mxfp4"}
    assert ("transformers" in model.runtimes) == loads
    if model.tunable:
        assert {hub.families().linears.get(kind) for kind in types} & {model.lora_targets}
