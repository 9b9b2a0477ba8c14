"""Whether rows can stand one behind the other: tried on the model itself, since families differ in what they heed.

Layers without positions (linear attention, alibi) and models that build masks of their own let a row see the one before
it, without a word.
"""

import random
from typing import Any

import torch

from tuning.training import attention
from tuning.training import model as base

_LENGTH = 24
_EXACT, _HALF = 1e-3, 0.05
"""Shares of what seeing the row before changes: below is rounding in 32 and in 16 bits, above rows are mixed."""


def why_mixed(model: Any) -> str:
    """What keeps rows of this model from standing in one line; empty when nothing does.

    Where attention can be by rows, a short row must say the same by it, behind another one, as alone by the model's
    own. Takes three forward passes of a few tokens.
    """
    if why := attention.why_not(model):
        return why
    drawn = random.Random(0)  # noqa: S311
    ids = [drawn.randrange(model.config.vocab_size) for _ in range(2 * _LENGTH)]
    half, whole = list(range(_LENGTH)), list(range(2 * _LENGTH))
    trains = model.training
    base.calm(model)
    try:
        with torch.no_grad():
            alone = _last(model, ids[_LENGTH:], half)
            mixed = _last(model, ids, whole)
            attention.by_rows(model)
            behind = _last(model, ids, half * 2, row_lengths=[_LENGTH, _LENGTH])
    finally:
        attention.by_masks(model)
        model.train(trains)
    if not torch.isfinite(alone).all():
        return ""  # broken weights: training ends at its first loss, and says why
    rounding = _EXACT if model.config.dtype == torch.float32 else _HALF
    if float((behind - alone).norm()) <= rounding * float((mixed - alone).norm()):
        return ""
    return "this model does not keep rows in one line apart"


def _last(model: Any, ids: list[int], positions: list[int], **more: Any) -> Any:
    """The logits of the last row, as training would see them: without a mask and without a cache."""
    there = {"dtype": torch.long, "device": model.device}
    said = model(
        input_ids=torch.tensor([ids], **there), position_ids=torch.tensor([positions], **there), use_cache=False, **more
    )
    return said.logits[0, -_LENGTH:].float()
