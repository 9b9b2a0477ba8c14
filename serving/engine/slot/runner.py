"""Runs the model on the tokens of one step: builds the step's tensors, sets transformers up for it, and back.

Knows the model and the pool; nothing of requests beyond their tokens and rows.
"""

import contextlib
from collections.abc import Iterator
from collections.abc import Sequence as Many
from typing import Any

import torch

from serving.engine.lora import Adapters
from serving.engine.slot import attention
from serving.engine.slot.attention import ROUND, Chunk, Step, current
from serving.engine.slot.kv import Pool
from serving.engine.slot.rope import RopeTable
from serving.engine.slot.sequence import Sequence

Work = tuple[Sequence, int]
"""A sequence and how many of its tokens are to be computed."""
WIDTH = 8
"""Steps with chunks are so many tokens wide, or a multiple."""


class Runner:
    """One model, for steps."""

    def __init__(self, model: Any, pool: Pool, adapters: Adapters, *, limit: int | None) -> None:
        self.pool = pool
        self.limit = limit
        self._model = model
        self.adapters = adapters
        self._rope = _table_in(model, limit)

    def run(self, singles: Many[Sequence], chunks: Many[Work]) -> torch.Tensor:
        """Scores [sequences, vocabulary]: of the singles, then of those chunks that end their sequence."""
        step, tokens, wanted = self._step(singles, chunks)
        rest = [(0, step.spare)] if step.spare else []
        self.adapters.gate(
            step.low, step.singles, [*((chunk.row, chunk.count) for chunk in step.chunks), *rest], wanted
        )
        with self._in_step(step):
            output = self._model(
                input_ids=tokens[None],
                position_ids=step.positions[None],
                use_cache=False,
                logits_to_keep=wanted,
            )
        for sequence in singles:
            sequence.row.count += 1  # type: ignore[union-attr]  # who runs has a row
        for sequence, count in chunks:
            sequence.row.count += count  # type: ignore[union-attr]
        scores: torch.Tensor = output.logits[0]
        return scores

    @contextlib.contextmanager
    def _in_step(self, step: Step) -> Iterator[None]:
        """The model's attention and rotations are the engine's, for one forward pass of this thread."""
        config, own = self._model.config, self._model.config._attn_implementation  # noqa: SLF001 (its public name loads kernels)
        config._attn_implementation, current.step = attention.NAME, step  # noqa: SLF001
        try:
            yield
        finally:
            config._attn_implementation, current.step = own, None  # noqa: SLF001

    def _step(self, singles: Many[Sequence], chunks: Many[Work]) -> tuple[Step, torch.Tensor, torch.Tensor | int]:
        pool = self.pool
        low, high = pool.span(sequence.row for sequence in singles)  # type: ignore[misc]
        count = high - low
        tokens, positions, turns, places, wanted = [0] * count, [0] * count, [0] * count, [pool.cap] * count, []
        for sequence in singles:
            at, position = sequence.row.index - low, len(sequence.tokens) - 1  # type: ignore[union-attr]
            tokens[at], positions[at], places[at] = sequence.tokens[-1], position, position
            turns[at] = self._turn(position, sequence)
            wanted.append(at)
        laid: list[Chunk] = []
        for sequence, size in chunks:
            start = sequence.row.count  # type: ignore[union-attr]
            laid.append(Chunk(sequence.row.index, start, size, len(tokens)))  # type: ignore[union-attr]
            tokens += sequence.tokens[start : start + size]
            positions += range(start, start + size)
            turns += range(self._turn(start, sequence), self._turn(start + size, sequence))
            if start + size == len(sequence.tokens):
                wanted.append(len(tokens) - 1)
        width = _width(len(tokens)) if laid else len(tokens)
        columns = [each + [0] * (width - len(each)) for each in (tokens, positions, turns, places)]
        laid_out = torch.tensor(columns).to(pool.shape.device, non_blocking=True)
        longest = max(positions[:count], default=0) + 1
        only = longest - 1 if count == 1 else None
        length = longest if count == 1 else min(pool.cap, -(-longest // ROUND) * ROUND)
        rows = torch.arange(low, high, device=pool.shape.device)
        step = Step(pool, laid_out[1], laid_out[2], low, rows, laid_out[3, :count], length, laid, only)
        return step, laid_out[0], _kept(wanted, width, pool.shape.device)

    def _turn(self, position: int, sequence: Sequence) -> int:
        return position + self.limit if sequence.long and self.limit is not None else position

    def reserve(self, length: int) -> None:
        """Have rotations for rows of this length."""
        if self._rope is not None:
            self._rope.reserve(length)


def _width(tokens: int) -> int:
    """An eighth more at the most: a CPU's libraries make and keep a kernel for each width, some hundred kilobytes."""
    step = max(WIDTH, (1 << tokens.bit_length()) >> 4)
    return -(-tokens // step) * step


def _kept(wanted: list[int], width: int, device: torch.device) -> torch.Tensor | int:
    """What transformers calls `logits_to_keep`: whose scores are wanted; one for nobody where none are."""
    if wanted == list(range(width)):
        return 0
    return torch.tensor(wanted, device=device) if wanted else 1


def _table_in(model: Any, limit: int | None) -> RopeTable | None:
    """The table in place of the model's own rotations, if it has them where most have them."""
    inner = model.get_decoder() if hasattr(model, "get_decoder") else model.base_model
    if not hasattr(inner, "rotary_emb"):
        return None
    own = inner.rotary_emb.own if isinstance(inner.rotary_emb, RopeTable) else inner.rotary_emb
    inner.rotary_emb = RopeTable(own, limit)
    return inner.rotary_emb  # type: ignore[no-any-return]
