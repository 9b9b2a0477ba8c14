"""The curve of a run: a row per optimizer step, whatever the attempt; kept in checkpoints and beside the adapter.

A resumed attempt repeats the steps since its checkpoint: of each step the last word counts. Nothing here knows torch.
"""

import contextlib
import itertools
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pydantic

from tuning.config import Progress

NAME = "metrics.jsonl"
"""The file's name, wherever it lies."""


class Row(pydantic.BaseModel, frozen=True):
    """What is known after one step."""

    t: float
    """When, in seconds since 1970."""
    attempt: int
    step: int
    max_steps: int | None = None
    epoch: float | None = None
    loss: pydantic.FiniteFloat | None = None
    eval_loss: pydantic.FiniteFloat | None = None
    lr: float | None = None
    grad_norm: float | None = None
    tokens: int | None = None
    """Trained on since the first step, in all attempts."""
    supervised_tokens: int | None = None
    """Those of them that were learned from."""
    tok_s: float | None = None
    mem_gb: float | None = None
    """GiB, the most of this attempt."""
    eta_s: int | None = None


class Curve:
    """The rows of a run, by step."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._rows: dict[int, Row] = {}
        self._before = (0, 0)
        self._began: float | None = None
        self.attempt = 1

    @property
    def rows(self) -> list[Row]:
        """In the order of their steps."""
        return [self._rows[step] for step in sorted(self._rows)]

    @property
    def resumed_from(self) -> list[int]:
        """The steps after which a later attempt went on."""
        return resumed_from(self.rows)

    @property
    def seconds(self) -> float:
        """That training took, all attempts together, up to each one's last step that counts."""
        spans: dict[int, list[float]] = {self.attempt: [self._began]} if self._began and self._rows else {}
        for row in self._rows.values():
            spans.setdefault(row.attempt, []).append(row.t)
        return sum(max(times) - min(times) for times in spans.values())

    def load(self, file: Path) -> None:
        """Take an earlier attempt's rows, if they are there."""
        with contextlib.suppress(OSError):
            self._rows = {row.step: row for row in read(file)}

    def resume(self, step: int, losses: Sequence[float]) -> None:
        """Go on after this step of an earlier attempt, or begin; what its rows do not tell, its losses do."""
        self._began = self._clock()
        self._rows = {at: row for at, row in self._rows.items() if at <= step}
        first = min((row.attempt for row in self._rows.values()), default=1)
        for at, loss in enumerate(losses[:step], start=1):
            self._rows.setdefault(at, Row(t=self._began, attempt=first, step=at, loss=loss))
        if self._rows:
            self.attempt = 1 + max(row.attempt for row in self._rows.values())
            known = self.rows
            self._before = (
                max(row.tokens or 0 for row in known),
                max(row.supervised_tokens or 0 for row in known),
            )

    def add(self, progress: Progress) -> None:
        """Take what a step says; a later word on the same step, its loss on rows held out, is added to it."""
        if progress.step is None or (progress.loss is None and progress.eval_loss is None):
            return
        said = {
            "loss": progress.loss,
            "eval_loss": progress.eval_loss,
            "max_steps": progress.max_steps,
            "epoch": progress.epoch,
            "lr": progress.learning_rate,
            "grad_norm": progress.grad_norm,
            "tokens": None if progress.tokens is None else self._before[0] + progress.tokens,
            "supervised_tokens": (
                None if progress.supervised_tokens is None else self._before[1] + progress.supervised_tokens
            ),
            "tok_s": progress.tokens_per_second,
            "mem_gb": progress.gpu_memory_gib,
            "eta_s": progress.eta_seconds,
        }
        known = {name: value for name, value in said.items() if value is not None}
        before = self._rows.get(progress.step)
        if before is None or (before.attempt != self.attempt and progress.loss is not None):
            before = Row(t=round(self._clock(), 3), attempt=self.attempt, step=progress.step)
        self._rows[progress.step] = before.model_copy(update=known)

    def write(self, file: Path) -> None:
        """As JSON lines."""
        file.write_text("".join(f"{row.model_dump_json(exclude_none=True)}\n" for row in self.rows))


def resumed_from(found: Sequence[Row]) -> list[int]:
    """The steps after which a later attempt went on, of rows in the order of their steps."""
    return [later.step - 1 for row, later in itertools.pairwise(found) if later.attempt > row.attempt]


def read(file: Path) -> list[Row]:
    """The rows of a file."""
    return rows(file.read_text(errors="replace"))


def rows(text: str) -> list[Row]:
    """The rows of a text, by step; the last one of each counts, and what cannot be read is passed over."""
    found: dict[int, Row] = {}
    for line in text.splitlines():
        with contextlib.suppress(pydantic.ValidationError):
            row = Row.model_validate_json(line)
            found[row.step] = row
    return [found[step] for step in sorted(found)]
