"""The bar on a terminal: how far the run is, and what it says of itself; words of the log go above it."""

import contextlib
import logging
from collections.abc import Iterator
from typing import Any, TextIO

from tuning.config import Progress


class Bar:
    """A listener of progress that draws it."""

    def __init__(self, drawn: Any) -> None:
        self._drawn = drawn
        self._task = drawn.add_task("", total=100, words="")

    def __call__(self, progress: Progress) -> None:
        """Draw it as it is now."""
        self._drawn.update(self._task, completed=progress.percent, description=progress.phase, words=words(progress))


@contextlib.contextmanager
def drawn(stream: TextIO) -> Iterator[Bar | None]:
    """A bar on the stream meanwhile if somebody looks at it there, else None; the log goes on above it."""
    if not stream.isatty():
        yield None
        return
    import rich.console  # noqa: PLC0415 -- a tenth of a second that a pod need not pay
    import rich.progress  # noqa: PLC0415

    console = rich.console.Console(file=stream)
    columns = ("{task.description:5}", rich.progress.BarColumn(24), "{task.percentage:3.0f} %  {task.fields[words]}")
    progress = rich.progress.Progress(*columns, console=console, redirect_stdout=False, redirect_stderr=False)
    with progress, _above(stream, console):
        yield Bar(progress)


def words(progress: Progress) -> str:
    """What a line has beside the bar, the most wanted first, since a narrow terminal cuts it."""
    parts = [progress.message] if progress.message else []
    if progress.step is not None:
        parts.append(f"step {progress.step}" + (f" of {progress.max_steps}" if progress.max_steps else ""))
    parts += [f"{_span(progress.eta_seconds)} left"] if progress.eta_seconds else []
    parts += [f"loss {progress.loss:.4f}"] if progress.loss is not None else []
    parts += [f"{progress.eval_loss:.4f} on rows held out"] if progress.eval_loss is not None else []
    parts += [f"{progress.tokens_per_second:.0f} tokens/s"] if progress.tokens_per_second else []
    parts += [f"{progress.gpu_memory_gib:.1f} GiB"] if progress.gpu_memory_gib else []
    return ", ".join(parts).replace("[", "(")  # which rich would read as a style


@contextlib.contextmanager
def _above(stream: TextIO, console: Any) -> Iterator[None]:
    """Let log lines for the stream go through the console, which draws the bar anew below them."""
    handlers = [one for one in logging.getLogger().handlers if getattr(one, "stream", None) is stream]
    for handler in handlers:
        handler.setStream(_Lines(console))  # type: ignore[attr-defined]  # only those with a stream are here
    try:
        yield
    finally:
        for handler in handlers:
            handler.setStream(stream)  # type: ignore[attr-defined]


class _Lines:
    """A stream whose lines the console prints as they are."""

    def __init__(self, console: Any) -> None:
        self._console = console

    def write(self, text: str) -> None:
        self._console.print(text, end="", markup=False, highlight=False, soft_wrap=True)

    def flush(self) -> None:
        """Each line is out already."""


def _span(seconds: int) -> str:
    minutes, hours = seconds // 60, seconds // 3600
    return f"{hours} h {minutes % 60} min" if hours else f"{minutes} min" if minutes else f"{seconds} s"
