"""The slot engine against one-at-a-time `generate`, in one process on one thread, in alternating pairs.

    make bench-engine

Throughput with 1, 8 and 32 clients, how long answers stand still while a long prompt comes in, what adapters cost, and
what a shared beginning of prompts saves. The last line is one JSON object. On a machine that others use too,
`--clock processor` counts processor time.
"""

import argparse
import asyncio
import itertools
import json
import random
import statistics
import tempfile
import time
from pathlib import Path

import peft
import torch
import transformers

from serving.engine.protocol import Request, Sampling
from serving.engine.slot.engine import SlotEngine
from tests.bench.serving import models

CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}
CLOCK = [time.perf_counter]
GREEDY = Sampling(do_sample=False)
REQUESTS = {1: 8, 8: 32, 32: 64}
ROWS = "{:<34} {:>9} {:>9} {:>9}"
LINEARS = ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]
ADAPTERS = [f"adapter-{number}" for number in range(8)]


def main():
    asked = argparse.ArgumentParser()
    asked.add_argument("--pairs", type=int, default=3)
    asked.add_argument("--models", default="s,m")
    asked.add_argument("--only", default="throughput,gap,lora,prefix")
    asked.add_argument("--clock", choices=CLOCKS, default="wall")
    asked = asked.parse_args()
    CLOCK[:] = [CLOCKS[asked.clock]]
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    print(ROWS.format("", "median", "least", "most"))
    figures = {}
    with tempfile.TemporaryDirectory() as scratch:
        for size in asked.models.split(","):
            folder = models.checkpoint(Path(scratch) / size, size)
            if "throughput" in asked.only:
                figures[size] = throughput(folder, size, asked.pairs)
        parts = {"gap": gap, "lora": lora, "prefix": prefix}
        for part in asked.only.split(","):
            if part in parts:
                figures |= parts[part](folder, asked.pairs)
    print(json.dumps(figures))


def throughput(folder, size, pairs):
    """Tokens per second, ratios to `generate`, and whether the tokens are the same."""
    reference, engine = model(folder), SlotEngine(model(folder), threads=1)
    found, same = {}, []
    for clients, count in REQUESTS.items():
        ratios = []
        for pair in range(pairs + 1):
            wanted = requests(size, count, seed=100 * clients + pair)
            ours, tokens = timed(lambda: asyncio.run(answers(engine, wanted, clients)))  # noqa: B023
            theirs, expected = timed(lambda: [generated(reference, each) for each in wanted])  # noqa: B023
            if pair:  # the first one is for warming up
                ratios.append(theirs / ours)
                same += [one == other for one, other in zip(tokens, expected, strict=True)]
        found[f"c{clients}"] = row(f"{size}: times as fast, {clients} clients", ratios)
    asyncio.run(engine.stop())
    return found | {"token_identical": sum(same) / len(same)}


def gap(folder, pairs):
    """The longest pause of 8 answers when a prompt of 1,200 tokens arrives, with and without chunks."""
    ratios = []
    for _ in range(pairs):
        longest = {}
        for chunk in (128, 2048):
            engine = SlotEngine(model(folder), threads=1, chunk=chunk)
            asyncio.run(pause(engine, 20))
            longest[chunk] = asyncio.run(pause(engine, 1200))
            asyncio.run(engine.stop())
        ratios.append(longest[128] / longest[2048])
    return {"gap": row("m: longest pause, to unchunked", ratios)}


async def pause(engine, length):
    """The longest time between two tokens of one of 8 answers, a prompt of this length among them."""
    others = [(prompt(32, seed), 90, {}) for seed in range(2, 9)]
    running, stamps = [asyncio.ensure_future(answers(engine, others, len(others)))], []
    watched = Request(prompt(32, 1), 90, sampling=GREEDY, stop_ids=frozenset())
    async for _ in engine.generate(watched):
        stamps.append(CLOCK[0]())
        if len(stamps) == 40:
            running.append(asyncio.ensure_future(answers(engine, [(prompt(length, 99), 8, {})], 1)))
    await asyncio.gather(*running)
    return max(later - sooner for sooner, later in itertools.pairwise(stamps[8:]))


def lora(folder, pairs):
    """16 rows: the bare model against 8 adapters mixed, and against one of eight loaded ones."""
    bare, loaded = SlotEngine(model(folder), threads=1), SlotEngine(model(folder), threads=1)
    for number, name in enumerate(ADAPTERS):
        asyncio.run(loaded.load_adapter(name, adapter(folder, name, number)))
    mixes = {"k8": [{ADAPTERS[row % 8]: 1.0} for row in range(16)], "1of8": [{ADAPTERS[5]: 1.0}] * 16}
    ratios = {name: [] for name in mixes}
    for pair in range(pairs + 1):
        for name, mix in mixes.items():
            seeds = range(20 * pair, 20 * pair + 16)
            plain, _ = timed(lambda: asyncio.run(answers(bare, [(prompt(16, seed), 64, {}) for seed in seeds], 16)))  # noqa: B023
            work = [(prompt(16, seed), 64, each) for seed, each in zip(seeds, mix, strict=True)]
            mixed, _ = timed(lambda: asyncio.run(answers(loaded, work, 16)))  # noqa: B023
            if pair:
                ratios[name].append(mixed / plain)
    for engine in (bare, loaded):
        asyncio.run(engine.stop())
    return {f"lora_slowdown_{name}": row(f"m: slower with adapters, {name}", found) for name, found in ratios.items()}


def prefix(folder, pairs):
    """Time to the first token of the second prompt that begins with the same 400 tokens, to that of the first."""
    engine, ratios = SlotEngine(model(folder), threads=1), []
    for pair in range(pairs + 1):
        shared = prompt(400, pair)
        first, second = (
            timed(lambda: asyncio.run(answers(engine, [(shared + prompt(12, seed), 1, {})], 1)))[0]  # noqa: B023
            for seed in (1000 + pair, 2000 + pair)
        )
        if pair:
            ratios.append(second / first)
    asyncio.run(engine.stop())
    return {"prefix": row("m: first token, shared 400 tokens", ratios)}


def model(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def adapter(base, name, seed):
    torch.manual_seed(seed)
    tuned = peft.get_peft_model(model(base), peft.LoraConfig(r=16, target_modules=LINEARS, task_type="CAUSAL_LM"))
    tuned.save_pretrained(base / name)
    return base / name


def requests(size, count, seed):
    chance, (low, high) = random.Random(seed), models.ANSWERS[size]
    return [(prompt(chance.randint(16, 200), chance.random()), chance.randint(low, high), {}) for _ in range(count)]


def prompt(length, seed):
    chance = random.Random(seed)
    return tuple(chance.randrange(10, 4000) for _ in range(length))


async def answers(engine, wanted, clients):
    """The tokens of each request; so many clients, each with one request at a time."""
    left, tokens = list(enumerate(wanted)), [[] for _ in wanted]

    async def client():
        while left:
            index, (ids, count, mix) = left.pop(0)
            request = Request(ids, count, sampling=GREEDY, stop_ids=frozenset(), adapters=mix)
            async for delta in engine.generate(request):
                tokens[index] += delta.tokens

    await asyncio.gather(*[client() for _ in range(clients)])
    return tokens


def generated(reference, asked):
    ids = torch.tensor([asked[0]])
    with torch.inference_mode():
        output = reference.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=asked[1],
            eos_token_id=None,
            pad_token_id=0,
        )
    return output[0, ids.shape[1] :].tolist()


def timed(work):
    began = CLOCK[0]()
    result = work()
    return CLOCK[0]() - began, result


def row(name, ratios):
    print(ROWS.format(name, *(f"{each:.2f}" for each in (statistics.median(ratios), min(ratios), max(ratios)))))
    return round(statistics.median(ratios), 3)


if __name__ == "__main__":
    main()
