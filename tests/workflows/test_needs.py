import datetime

import pytest

import presets
from kaito_hera.settings import Azure, Settings
from presets import memory
from serving import inference_config
from tests import making
from tuning import training_config
from workflows import needs
from workflows.outlook import documents, judging

AZURE = Azure(tenant_id="t", client_id="c", subscription_id="s", resource_group="g", cluster_name="a", location="l")


@pytest.mark.parametrize(
    ("said", "stored"),
    [
        ("", None),
        ("load_in_8bit: true", "8 bits"),
        ("bnb_4bit_use_double_quant: false", "4 bits"),
    ],
)
def test_how_the_base_model_is_stored_is_what_the_config_says(said, stored):
    text = f"training_config:\n  QuantizationConfig:\n    {said}\n" if said else "training_config: {}"
    assert needs.batch(training_config.parse(text, "qlora")).stored == stored
    assert stored is None or stored in memory.BYTES


def test_a_volume_for_what_is_trained_is_as_large_as_model_and_rank_ask_for():
    def gib(model, rank):
        text = f"training_config: {{LoraConfig: {{r: {rank}}}}}"
        return needs.scratch_gib(model, training_config.parse(text, "qlora"))

    small, large = presets.preset("phi-3-mini-4k-instruct"), presets.preset("llama-3.3-70b-instruct")
    assert gib(small, 8) == 2
    assert gib(small, 128) > 8 * (gib(small, 8) - 1)
    weights = memory.trained(large, 64)
    assert 44 * weights < gib(large, 64) * 2**30 < 60 * weights
    assert gib(None, 8) == 32, "a model that no file describes"


def gpus(text, *, size, serve=True):
    """What plan says of the size where the ConfigMap has this text."""
    made = making.edited(making.inference() if serve else making.tuning_only(), instanceType=size)
    made["inference" if serve else "tuning"]["config"] = "mine"
    key = "inference_config.yaml" if serve else "training_config.yaml"
    beside = documents.Documents((), {("team", "mine"): {key: text}})
    return judging.judge(made, beside, Settings(node_provider="aks", azure=AZURE), on=datetime.date(2026, 11, 21))


@pytest.mark.parametrize(
    ("text", "asks"),
    [("bfloat16", True), ("auto", False), ("half", False)],
)
def test_a_server_in_bfloat16_is_refused_on_a_gpu_without_it(text, asks):
    said = gpus(f"vllm: {{dtype: {text}}}", size="Standard_NC4as_T4_v3").errors
    assert [one.reason for one in said] == ["UnsupportedGPU"] * asks
    assert all("inference.config asks for it (vllm.dtype: bfloat16)" in one.problem for one in said)
    assert gpus(f"vllm: {{dtype: {text}}}", size="Standard_NC24ads_A100_v4").works


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("ModelConfig: {dtype: bfloat16}", "ModelConfig.torch_dtype"),
        ("QuantizationConfig: {bnb_4bit_compute_dtype: bfloat16}", "QuantizationConfig.bnb_4bit_compute_dtype"),
        ("{ModelConfig: {torch_dtype: bfloat16}, QuantizationConfig: {bnb_4bit_compute_dtype: float16}}", ""),
    ],
)
def test_training_in_bfloat16_is_told_to_become_float16_on_a_gpu_without_it(text, key):
    told = gpus(
        f"training_config: {text}" if text[0] == "{" else f"training_config: {{{text}}}",
        size="Standard_NC4as_T4_v3",
        serve=False,
    )
    said = [one.problem for one in told.warnings if "bfloat16" in one.problem and "capability" in one.problem]
    assert told.works
    assert len(said) == bool(key)
    assert all(f"tuning.config asks for it ({key}: bfloat16), and training takes float16" in one for one in said)


@pytest.mark.parametrize(
    ("runtime", "text", "kept"),
    [
        ("vllm", "", 4 * 64 * 2),
        ("vllm", "max-loras: 2, max-lora-rank: 16", 2 * 16 * 2),
        ("vllm", "dtype: float32", 4 * 64 * 4),
        ("vllm", "enable-lora: false", 0),
        ("transformers", "", 0),
    ],
)
def test_vllm_takes_memory_for_adapters_where_it_is_started_for_some(runtime, text, kept):
    def part(adapters):
        made = making.inference(annotations={"kaito.sh/runtime": runtime})
        made["inference"]["adapters"] = adapters
        model = presets.preset("phi-4")
        chosen, _ = inference_config.parse(f"vllm: {{{text}}}", runtime)
        [demand] = needs.demands(making.parsed(made), model, None, chosen, runtime)
        return demand.need.parts.get("adapters", 0.0)

    one = [{"source": {"name": "mine", "image": "a.io/x:1"}, "strength": "1.0"}]
    assert part(one) == pytest.approx(sum(memory.room(presets.preset("phi-4").shape, 1, width=kept)))
    assert part([]) == 0
