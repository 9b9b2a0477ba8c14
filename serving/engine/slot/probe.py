"""Tries a model both ways before anybody is served: by rows, and as transformers runs it."""

from typing import Any

import torch

from serving.engine.protocol import Request
from serving.engine.slot.fits import Unfit
from serving.engine.slot.kv import Pool
from serving.engine.slot.runner import Runner
from serving.engine.slot.sequence import Sequence
from serving.engine.slot.settings import Settings

TOKENS = 12
WORST = {torch.float32: 1e-3, torch.float16: 0.05, torch.bfloat16: 0.1}
"""How far scores may be apart, as a share of their size."""


def check(model: Any, runner: Runner, pool: Pool) -> None:
    """Raises Unfit if a prompt in two chunks and a single token do not score as the whole at once does."""
    tokens = [1 + at % (model.config.get_text_config().vocab_size - 1) for at in range(TOKENS)]
    runner.reserve(pool.cap + 1)
    try:
        with torch.inference_mode():
            expected = model(input_ids=torch.tensor([tokens], device=model.device), use_cache=False).logits[0, -1]
            found = _by_rows(runner, pool, tokens)
    except (AttributeError, IndexError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        raise Unfit(f"a trial failed: {type(error).__name__}: {str(error).partition(chr(10))[0]}") from error
    apart = float((found - expected).float().norm() / expected.float().norm())
    if not apart <= WORST.get(expected.dtype, 0.1):
        raise Unfit(f"a trial gave other scores than transformers, {apart:.2g} of their size apart")


def _by_rows(runner: Runner, pool: Pool, tokens: list[int]) -> torch.Tensor:
    settings = Settings(False, 1.0, 0, 1.0, 0.0, 1.0, 1.0, 0, frozenset(), False)  # noqa: FBT003
    sequence = Sequence(Request(tuple(tokens), 1), settings, None, tokens, {})  # type: ignore[arg-type]  # nobody waits
    sequence.row = pool.claim(tokens, None)
    assert sequence.row is not None
    try:
        for count in (TOKENS // 2, TOKENS - TOKENS // 2 - 1):
            runner.run([], [(sequence, count)])
        return runner.run([sequence], [])[-1]
    finally:
        pool.release(sequence.row, forget=True)
