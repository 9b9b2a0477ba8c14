"""The loss of a run by its steps, out of what tells of it: a log's progress lines, metrics.jsonl, a summary. Pure.

Any of them may be a stranger's: what is no number is passed over, and no more is read than a run could have said.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import pydantic

from kaito_hera import plot
from kaito_hera.paper import Paper, inert
from tuning.config import Progress
from tuning.curve import NAME, Row, resumed_from, rows

SUMMARY, METRICS = "training_summary.json", NAME
_MOST = 200_000
"""Steps."""
_HEIGHT = 16
_Number = pydantic.FiniteFloat


class _Summary(pydantic.BaseModel):
    loss_curve: list[tuple[_Number, _Number]] = []
    eval_curve: list[tuple[_Number, _Number]] = []
    resumed_from: list[_Number] = []
    steps: _Number = 0
    eval_loss: _Number | None = None


class Curve(NamedTuple):
    """What is drawn."""

    losses: tuple[tuple[float, float], ...] = ()
    evals: tuple[tuple[float, float], ...] = ()
    resumed: tuple[float, ...] = ()
    """Steps after which a later attempt went on."""
    steps: float = 0
    """In all, if they are known."""


def of_text(text: str) -> Curve:
    """Of a summary or of metrics.jsonl, whichever it is; an empty curve if it is neither."""
    try:
        whole: Any = json.loads(text)
    except (ValueError, RecursionError):
        whole = None
    if isinstance(whole, dict) and "step" not in whole:
        return of_summary(text)
    return of_rows(rows(text))


def of_summary(text: str) -> Curve:
    """Of training_summary.json."""
    try:
        found = _Summary.model_validate_json(text)
    except pydantic.ValidationError:
        return Curve()
    evals = found.eval_curve or ([(found.steps, found.eval_loss)] if found.eval_loss is not None else [])
    return Curve(tuple(found.loss_curve[:_MOST]), tuple(evals[:_MOST]), tuple(found.resumed_from[:_MOST]), found.steps)


def of_rows(found: Sequence[Row]) -> Curve:
    """Of a row per step."""
    found = found[:_MOST]
    return Curve(
        tuple((row.step, row.loss) for row in found if row.loss is not None),
        tuple((row.step, row.eval_loss) for row in found if row.eval_loss is not None),
        tuple(resumed_from(found)),
        max((row.max_steps or 0 for row in found), default=0),
    )


def of_logs(logs: Iterable[Iterable[str]]) -> Curve:
    """Of the logs of a run's attempts, the earliest first; a later word on a step counts."""
    losses: dict[int, float] = {}
    evals: dict[int, float] = {}
    resumed: set[int] = set()
    steps = 0
    for log in logs:
        for said in filter(None, map(Progress.parse, log)):
            steps = max(steps, said.max_steps or 0)
            if said.resumed_from_step:
                resumed.add(said.resumed_from_step)
            if said.step is not None and said.loss is not None:
                losses[said.step] = said.loss
            if said.step is not None and said.eval_loss is not None:
                evals[said.step] = said.eval_loss
    return Curve(tuple(sorted(losses.items())), tuple(sorted(evals.items())), tuple(sorted(resumed)), steps)


def drawn(curve: Curve, title: str, paper: Paper) -> list[str]:
    """The curve, as wide as the paper."""
    width = min(paper.width or 80, 160)
    head = [paper.paint(inert(title), "bold")]
    if not curve.losses and not curve.evals:
        return [*head, "no loss is known yet"]
    lines = plot.plot(curve.losses, width, _HEIGHT, marks=curve.evals, rules=curve.resumed, end=curve.steps)
    return [*head, *lines, *paper.wrap(_words(curve))]


def _words(curve: Curve) -> str:
    parts = []
    if curve.losses:
        (first, begun), (last, now) = curve.losses[0], curve.losses[-1]
        parts.append(f"loss {begun:.4g} at step {first:g}, {now:.4g} at step {last:g}")
    if curve.evals:
        parts.append(f"◆ on rows held out: {curve.evals[-1][1]:.4g}")
    if curve.resumed:
        parts.append(f"┊ resumed from step {', '.join(f'{step:g}' for step in curve.resumed)}")
    return "; ".join(parts)
