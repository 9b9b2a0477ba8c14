"""Attention over the pool: the tokens of a step come packed in one row, each looks at the keys of its own request.

transformers calls it in place of its own attention; masks, grouped heads and the writing of keys and values are done
here, so the model is run without a cache and without masks. A sliding window is one more term of the mask.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn import functional
from transformers import AttentionInterface

from serving.engine.slot.kv import Pool

NAME = "kaito_slots"
ROUND = 16
"""Masks are so wide or a multiple of it: GPUs' kernels like that."""


@dataclass(frozen=True)
class Chunk:
    """Some tokens of one row: `count` from position `start` on, at `offset` among the step's tokens."""

    row: int
    start: int
    count: int
    offset: int

    @property
    def end(self) -> int:
        """The position behind the last token."""
        return self.start + self.count


@dataclass
class Step:
    """One forward pass: first a token for each row from `low` on, then the chunks, then some for nobody."""

    pool: Pool
    positions: torch.Tensor
    """Of all tokens."""
    turns: torch.Tensor
    """Where each token's rotation stands in the table."""
    low: int
    rows: torch.Tensor
    """Of the single tokens."""
    places: torch.Tensor
    """Where the single tokens' keys go within their rows."""
    length: int
    """How many keys the single tokens look at."""
    chunks: list[Chunk]
    only: int | None = None
    """The place of the one single token, if there is but one: it needs no mask."""
    masks: dict[tuple[int | None, int, int], torch.Tensor] = field(default_factory=dict)
    """By window, chunk (-1: the single tokens) and query heads of each key head."""

    @property
    def singles(self) -> int:
        """How many single tokens there are."""
        return self.rows.shape[0]

    @property
    def spare(self) -> int:
        """How many tokens behind the last chunk are for nobody."""
        return self.positions.shape[0] - self.singles - sum(chunk.count for chunk in self.chunks)

    def mask(self, window: int | None, chunk: int, group: int, like: torch.Tensor) -> torch.Tensor | None:
        """What is added to scores: 0 for what may be seen, else minus infinity; computed once for all layers.

        None: a single token that may see all that is there.
        """
        if chunk < 0 and self.only is not None and (window is None or self.length <= window):
            return None
        key = (window, chunk, group)
        if key not in self.masks:
            self.masks[key] = self._single_mask(window, like) if chunk < 0 else self._mask(window, chunk, group, like)
        return self.masks[key]

    def _single_mask(self, window: int | None, like: torch.Tensor) -> torch.Tensor:
        queries = self.positions[: self.singles]
        return _bias(queries, self.length, window, like)[:, None, None]

    def _mask(self, window: int | None, chunk: int, group: int, like: torch.Tensor) -> torch.Tensor:
        where = self.chunks[chunk]
        queries = torch.arange(where.start, where.end, device=like.device)
        return _bias(queries, where.end, window, like).repeat(group, 1)[None, None]


def _bias(queries: torch.Tensor, length: int, window: int | None, like: torch.Tensor) -> torch.Tensor:
    distance = queries[:, None] - torch.arange(length, device=like.device)
    hidden = distance < 0 if window is None else (distance < 0) | (distance >= window)
    return torch.zeros(hidden.shape, dtype=like.dtype, device=like.device).masked_fill_(hidden, float("-inf"))


class Current(threading.local):
    """The step that this thread runs; None: transformers runs by itself."""

    step: Step | None = None


current = Current()


def attend(  # noqa: PLR0917 (transformers calls it so)
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    _mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **more: Any,
) -> tuple[torch.Tensor, None]:
    """All of [1, heads, tokens, size], rotated already; [1, tokens, heads, size] comes back."""
    step = current.step
    if step is None or dropout or any(more.get(name) is not None for name in ("s_aux", "position_bias")):
        raise NotImplementedError("this attention is not that of the slot engine")
    mix = _capped(softcap) if softcap else functional.scaled_dot_product_attention
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    keys, values = step.pool.keys[module.layer_idx], step.pool.values[module.layer_idx]
    outputs = []
    if step.singles:
        outputs.append(_singles(step, (query, key, value), (keys, values), (mix, scale, sliding_window)))
    outputs += [
        _chunk(step, index, (query, key, value), (keys, values), (mix, scale, sliding_window))
        for index in range(len(step.chunks))
    ]
    if step.spare:
        outputs.append(query.new_zeros(step.spare, query.shape[1], query.shape[3]))
    return (outputs[0] if len(outputs) == 1 else torch.cat(outputs))[None], None


Three = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
Two = tuple[torch.Tensor, torch.Tensor]
Way = tuple[Callable[..., torch.Tensor], float, int | None]


def _singles(step: Step, fresh: Three, pool: Two, way: Way) -> torch.Tensor:
    count, (query, key, value), (keys, values), (mix, scale, window) = step.singles, fresh, pool, way
    if step.only is not None:
        keys[step.low, :, step.only], values[step.low, :, step.only] = key[0, :, 0], value[0, :, 0]
    else:
        keys[step.rows, :, step.places] = key[0, :, :count].transpose(0, 1)
        values[step.rows, :, step.places] = value[0, :, :count].transpose(0, 1)
    heads, size = query.shape[1], query.shape[3]
    grouped = query[0, :, :count].transpose(0, 1).reshape(count, keys.shape[1], -1, size)
    seen = slice(step.low, step.low + count), slice(None), slice(step.length)
    mask = step.mask(window, -1, 1, query)
    return mix(grouped, keys[seen], values[seen], attn_mask=mask, scale=scale).reshape(count, heads, size)


def _chunk(step: Step, index: int, fresh: Three, pool: Two, way: Way) -> torch.Tensor:
    chunk, (query, key, value), (keys, values), (mix, scale, window) = step.chunks[index], fresh, pool, way
    tokens = slice(chunk.offset, chunk.offset + chunk.count)
    keys[chunk.row, :, chunk.start : chunk.end] = key[0, :, tokens]
    values[chunk.row, :, chunk.start : chunk.end] = value[0, :, tokens]
    heads, size, group = query.shape[1], query.shape[3], query.shape[1] // keys.shape[1]
    folded = query[:, :, tokens].reshape(1, keys.shape[1], group * chunk.count, size)
    seen = slice(chunk.row, chunk.row + 1), slice(None), slice(chunk.end)
    mask = step.mask(window, index, group, query)
    output = mix(folded, keys[seen], values[seen], attn_mask=mask, scale=scale)
    return output.reshape(heads, chunk.count, size).transpose(0, 1)


def _capped(cap: float) -> Callable[..., torch.Tensor]:
    """Scores kept below a limit, as gemma2 wants them; torch has no fast way for it."""

    def mix(
        query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, attn_mask: torch.Tensor | None, scale: float
    ) -> torch.Tensor:
        scores = torch.tanh(query @ key.transpose(2, 3) * scale / cap) * cap
        scores = scores if attn_mask is None else scores + attn_mask
        return functional.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype) @ value

    return mix


AttentionInterface.register(NAME, attend)
