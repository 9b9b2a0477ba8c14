"""How many of 500 requests get the tokens that transformers' and peft's own `generate` gives.

    make equal-serving

Every architecture that is batched, with the windows and rotations of the real models scaled down; prompts on both
sides of each limit, adapters in every mix and strength, all beside one another. The last line is one JSON object.
"""

import argparse
import asyncio
import json
import random
import sys
import tempfile
from pathlib import Path

import torch
import transformers

from serving.engine.slot.engine import SlotEngine
from tests.serving import architectures, crowds, tiny

ROWS = "{:<24} {:>9} {:>9} {:>9} {:>9}"


def main():
    asked = argparse.ArgumentParser()
    asked.add_argument("--requests", type=int, default=500)
    asked.add_argument("--seed", type=int, default=0)
    asked = asked.parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    print(ROWS.format("", "requests", "equal", "tokens", "reused"))
    sums = [0, 0]
    for name in architectures.CONFIGS:
        count = -(-asked.requests // len(architectures.CONFIGS))
        sums = [sum(both) for both in zip(sums, compared(name, count, asked.seed), strict=True)]
    print(json.dumps({"requests": sums[0], "equal": sums[1], "token_identical": sums[1] / sums[0], "seed": asked.seed}))
    sys.exit(sums[0] != sums[1])


def compared(name, count, seed):
    """So many requests to a model of this architecture; how many were asked and equal."""
    asked, chance = crowds.crowd(f"{name} {seed}", count), random.Random(seed)
    with tempfile.TemporaryDirectory() as scratch:
        folder = crowds.checkpoint(name, Path(scratch))
        engine = SlotEngine(tiny.model(folder), threads=1, slots=chance.randint(2, 12), chunk=chance.randint(4, 64))
        found = asyncio.run(crowds.served(engine, folder, asked))
        reused = engine.stats().prefix_hits
        asyncio.run(engine.stop())
        wanted = crowds.generated(folder, asked)
    same = [one == other for one, other in zip(found, wanted, strict=True)]
    print(ROWS.format(name, count, sum(same), sum(map(len, wanted)), reused), flush=True)
    for at in (at for at, equal in enumerate(same) if not equal):
        print(f"  {asked[at]}\n  is {found[at]}\n  not {wanted[at]}")
    return count, sum(same)


if __name__ == "__main__":
    main()
