"""The slot engine over each architecture that it batches: the tokens of `generate`, whoever else is in the batch."""

import asyncio
import random

import pytest

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

import transformers

from serving.engine.protocol import Request, Sampling
from serving.engine.slot import fits
from serving.engine.slot.engine import SlotEngine
from tests.serving import architectures, tiny

GREEDY = Sampling(do_sample=False)


def crowd(seed, count=24):
    """Prompts and lengths on both sides of every limit, some with a common beginning, and when they come."""
    chance = random.Random(seed)
    prompts = [[chance.randrange(3, 211) for _ in range(chance.randint(1, 110))] for _ in range(count)]
    for at in range(4, count, 4):
        prompts[at] = prompts[at - 4][:50] + prompts[at][:20]
    return [(prompt, chance.randint(1, 40), chance.random() * 0.3) for prompt in prompts]


async def answer(engine, prompt, count, delay):
    await asyncio.sleep(delay)
    request = Request(tuple(prompt), count, sampling=GREEDY)
    return [token async for delta in engine.generate(request) for token in delta.tokens]


async def answers(engine, asked):
    return await asyncio.gather(*[answer(engine, *each) for each in asked])


@pytest.mark.parametrize("name", architectures.CONFIGS)
def test_tokens_are_those_of_generate(name):
    reference, asked = architectures.model(name), crowd(name)
    engine = SlotEngine(architectures.model(name), threads=1, slots=5, chunk=16)
    try:
        found = asyncio.run(answers(engine, asked))
        assert found == [tiny.greedy(reference, prompt, count) for prompt, count, _ in asked]
        assert engine.stats().prefix_hits > 0
    finally:
        asyncio.run(engine.stop())


def test_every_batched_architecture_is_among_these():
    assert {config().model_type for config in architectures.CONFIGS.values()} == fits.BATCHED


def test_long_and_short_ones_keep_their_own_factors():
    """One long sequence beside short ones, and each short one alone: longrope is switched by row."""
    asked = [([9] * 20, 12, 0), ([5, 6, 7] * 30, 30, 0), ([8] * (architectures.LIMIT - 3), 12, 0)]
    engine = SlotEngine(architectures.model("phi3 longrope"), threads=1, slots=4, chunk=16)
    reference = architectures.model("phi3 longrope")
    try:
        together = asyncio.run(answers(engine, asked))
        assert together == [asyncio.run(answers(engine, [each]))[0] for each in asked]
        assert together == [tiny.greedy(reference, prompt, count) for prompt, count, _ in asked]
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
