"""The slot engine over each architecture that it batches: the tokens of `generate`, whoever else is in the batch."""

import asyncio

import pytest

pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),  # peft asks for it
]
torch = pytest.importorskip("torch")

import transformers

from serving.engine.slot import fits
from serving.engine.slot.engine import SlotEngine
from tests.serving import architectures, crowds, tiny


@pytest.mark.parametrize("name", architectures.CONFIGS)
def test_tokens_are_those_of_generate(name, tmp_path):
    folder, asked = crowds.checkpoint(name, tmp_path), crowds.crowd(name, 12)
    engine = SlotEngine(tiny.model(folder), threads=1, slots=5, chunk=16)
    try:
        found = asyncio.run(crowds.served(engine, folder, asked))
        assert found == crowds.generated(folder, asked)
    finally:
        asyncio.run(engine.stop())


def test_every_batched_architecture_is_among_these():
    assert {config().model_type for config in architectures.CONFIGS.values()} == fits.BATCHED


def test_long_and_short_ones_keep_their_own_factors():
    """One long sequence beside short ones, and each short one alone: longrope is switched by row."""
    prompts = [([9] * 20, 12), ([5, 6, 7] * 30, 30), ([8] * (architectures.LIMIT - 3), 12)]
    asked = [crowds.Asked(*each, {}) for each in prompts]
    engine = SlotEngine(architectures.model("phi3 longrope"), threads=1, slots=4, chunk=16)
    reference = architectures.model("phi3 longrope")
    try:
        together = asyncio.run(crowds.answers(engine, asked))
        assert together == [asyncio.run(crowds.answers(engine, [each]))[0] for each in asked]
        assert together == [tiny.greedy(reference, *each) for each in prompts]
    finally:
        asyncio.run(engine.stop())


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        pytest.param(transformers.GPT2Config(n_embd=32, n_head=2, n_layer=1), "gpt2 is not among", id="architecture"),
        pytest.param(
            transformers.LlamaConfig(
                **architectures.COMMON, rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
            ),
            "rope_type dynamic depends on more",
            id="rope",
        ),
    ],
)
def test_what_cannot_be_batched_is_named(config, reason):
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with pytest.raises(fits.Unfit, match=reason):
        SlotEngine(model, threads=1)


def test_generation_config_that_only_generate_obeys_is_named():
    model = architectures.model("llama")
    model.generation_config.suppress_tokens = [5]
    with pytest.raises(fits.Unfit, match="sets suppress_tokens"):
        SlotEngine(model, threads=1)


def test_model_whose_trial_differs_is_named():
    model = architectures.model("llama")
    model.config.num_key_value_heads = 1  # not what its layers were built with
    with pytest.raises(fits.Unfit, match="a trial"):
        SlotEngine(model, threads=1)
