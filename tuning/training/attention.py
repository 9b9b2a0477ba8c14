"""Attention of a line in which rows stand one behind the other: row for row, by torch's kernels for one causal row.

transformers' own way is a mask over the whole line, by which everything between rows is computed and then left out: a
quarter of all time at the lengths of dolly-15k, and more the longer the line. Here nothing lies between rows.
"""

from collections.abc import Sequence
from typing import Any

import torch
import transformers
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from tuning.training import model

NAME = "rows_of_a_line"
"""transformers makes no mask for an attention that it knows no mask of."""


def why_not(adapted: Any) -> str:
    """What keeps this model from attention by rows; empty when nothing does."""
    below = model.causal(adapted)
    if not below._supports_attention_backend:  # noqa: SLF001 -- transformers has no public name for it, nor for the next
        return f"{type(below).__name__} computes attention in code of its own"
    if below.config._attn_implementation not in {"sdpa", NAME}:  # noqa: SLF001
        return f"{type(below).__name__} needs attention that torch has no kernels for"
    if getattr(below.config, "attention_chunk_size", None):
        return "attention_chunk_size divides rows where only a mask says so"
    return ""


def by_rows(adapted: Any) -> None:
    """From now on a forward pass names its `row_lengths`; without them each line is a row, filled up at its end."""
    transformers.AttentionInterface.register(NAME, _attend)
    model.causal(adapted).set_attn_implementation(NAME)


def by_masks(adapted: Any) -> None:
    """As the model was loaded."""
    model.causal(adapted).set_attn_implementation("sdpa")


def _attend(
    module: Any, query: Any, key: Any, value: Any, _mask: None, *, row_lengths: Sequence[int] = (), **more: Any
) -> tuple[Any, None]:
    """Of lines x heads x tokens x head size each, in rows of these lengths: lines x tokens x heads x head size."""
    sdpa, window, lengths = ALL_ATTENTION_FUNCTIONS["sdpa"], more.get("sliding_window"), row_lengths or query.shape[2:3]
    rows = zip(*(each.split(list(lengths), 2) for each in (query, key, value)), strict=True)
    return torch.cat([sdpa(module, *row, _band(row[0], window), **more)[0] for row in rows], 1), None


def _band(row: Any, window: int | None) -> Any:
    """Which of the `window` tokens up to its own each token of a row sees; None where these are all before it."""
    length = row.shape[2]
    if window is None or length <= window:
        return None
    whole = torch.ones(length, length, dtype=torch.bool, device=row.device)
    return whole.tril().triu(1 - window)[None, None]
