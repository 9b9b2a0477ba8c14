"""A crowd of requests on both sides of a model's limits, in every mix of adapters, and what `generate` answers."""

import asyncio
import random
from typing import NamedTuple

import peft

from serving.engine.protocol import Request, Sampling
from tests.serving import architectures, tiny

ADAPTERS = {
    "one": {"target_modules": "all-linear"},
    "two": {"r": 8, "target_modules": ["o_proj", "down_proj"]},
    "three": {"r": 2, "target_modules": "all-linear", "use_rslora": True, "alpha_pattern": {"o_proj": 3}},
}
STRENGTHS = (0.0, 0.25, 0.5, 1.0)
LONGEST = architectures.COMMON["max_position_embeddings"] - 40
"""Tokens of a prompt, so that its answer has room."""


class Asked(NamedTuple):
    """A request, and how many seconds after the first it comes."""

    prompt: list[int]
    count: int
    mix: dict[str, float]
    delay: float = 0.0


def crowd(seed, count):
    """Some of the prompts begin alike, with the same adapters and with others."""
    chance = random.Random(seed)
    asked = []
    for at in range(count):
        limit = chance.choice([architectures.WINDOW, architectures.LIMIT, LONGEST])
        length = chance.choice([chance.randint(1, 150), chance.randint(limit - 12, limit)])
        prompt = [chance.randrange(3, architectures.COMMON["vocab_size"]) for _ in range(length)]
        names = chance.sample(sorted(ADAPTERS), chance.randint(0, len(ADAPTERS)))
        mix = {name: chance.choice(STRENGTHS) for name in names}
        if at % 4 == 3:
            sooner = asked[at - chance.randint(1, 3)]
            prompt, mix = sooner.prompt[:60] + prompt[:20], chance.choice([mix, sooner.mix])
        asked.append(Asked(prompt, chance.randint(1, 40), mix, chance.random() * 0.01 * count))
    return asked


def checkpoint(name, folder):
    """A model of this architecture with its adapters beside it."""
    architectures.model(name).save_pretrained(folder)
    for seed, (adapter, options) in enumerate(ADAPTERS.items()):
        tiny.adapter(folder / adapter, folder, seed, **options)
    return folder


async def answers(engine, asked):
    """The tokens of each, all of them asked beside one another."""

    async def answer(each):
        await asyncio.sleep(each.delay)
        request = Request(tuple(each.prompt), each.count, sampling=Sampling(do_sample=False), adapters=each.mix)
        return [token async for delta in engine.generate(request) for token in delta.tokens]

    return await asyncio.gather(*[answer(each) for each in asked])


async def served(engine, folder, asked):
    """The same by an engine that has the checkpoint's adapters."""
    for name in ADAPTERS:
        await engine.load_adapter(name, folder / name)
    return await answers(engine, asked)


def generated(folder, asked):
    """What transformers and peft answer, one after the other."""
    tuned = peft.PeftModel.from_pretrained(tiny.model(folder), folder / "one", adapter_name="one")
    for name in ADAPTERS.keys() - {"one"}:
        tuned.load_adapter(folder / name, name)
    layers = [layer for layer in tuned.modules() if isinstance(layer, peft.tuners.lora.LoraLayer)]

    def answer(each):
        if not each.mix:
            with tuned.disable_adapter():
                return tiny.greedy(tuned.get_base_model(), each.prompt, each.count)
        tuned.base_model.set_adapter(list(each.mix))
        for name, strength in each.mix.items():
            for layer in layers:
                layer.set_scale(name, strength)
        return tiny.greedy(tuned.get_base_model(), each.prompt, each.count)

    return [answer(each) for each in asked]
