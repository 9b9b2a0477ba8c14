"""When training ends before its last step: the loss is no number, has run away, or the rows held out gain no more.

Pure functions of the losses so far, so that a run that was cut off ends where it would have ended.
"""

import math
import statistics
from collections.abc import Sequence

from tuning.errors import LossDiverged

WINDOW = 20
"""Steps whose median counts: that of one step is noise."""


def check(losses: Sequence[float], steps: int) -> None:
    """Raise LossDiverged when the last loss is no number, or the last 20 are far above the first 20.

    Far is half as much again and one nat more (a loss that was 2.0 is 4.0): noise, hard rows and a warm-up do not get
    there by the median, and training that does never came back with a rate as high as before.
    """
    said = f"step {len(losses)} of {steps}"
    if not math.isfinite(losses[-1]):
        raise LossDiverged(
            f"the loss is {losses[-1]} at {said}, after {_tail(losses[:-1])}; lower"
            " TrainingArguments.learning_rate or look for broken rows"
        )
    if len(losses) < 2 * WINDOW:
        return
    start, now = statistics.median(losses[:WINDOW]), statistics.median(losses[-WINDOW:])
    if now > 1.5 * start + 1:
        raise LossDiverged(
            f"the loss has gone from {start:.4g} to {now:.4g} (medians of {WINDOW} steps) at {said}; lower"
            " TrainingArguments.learning_rate or raise warmup_ratio"
        )


def is_best(evaluations: Sequence[float], threshold: float = 0.0) -> bool:
    """Whether the newest loss on the rows held out is the lowest, by more than the threshold."""
    return not math.isnan(evaluations[-1]) and evaluations[-1] < min(evaluations[:-1], default=math.inf) - threshold


def gains_no_more(evaluations: Sequence[float], patience: int | None, threshold: float = 0.0) -> bool:
    """Whether so many evaluations in a row were no better than the best before them."""
    if not patience:
        return False
    waited = 0
    for count in range(1, len(evaluations) + 1):
        waited = 0 if is_best(evaluations[:count], threshold) else waited + 1
    return waited >= patience


def _tail(losses: Sequence[float]) -> str:
    return ", ".join(f"{loss:.4g}" for loss in losses[-3:]) or "no step before"
