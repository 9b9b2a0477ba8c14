"""SIGTERM: the kubelet wants the pod gone. The run ends as `Evicted`, at once or where stopping does no harm."""

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Protocol

from tuning.config import GRACE_SECONDS
from tuning.errors import Evicted


def _raise(error: Evicted) -> None:
    raise error


class Keeper(Protocol):
    """Who keeps what was trained."""

    def next_stop(self) -> float:
        """Seconds until training can stop without a loss, as far as is known."""

    def finish(self, seconds: float) -> int:
        """The pod goes in so many seconds: the step that the next attempt goes on from; 0 where it starts over."""


class Eviction:
    """Whether the pod was asked to go; `go` ends the process where nothing would be lost."""

    def __init__(self, go: Callable[[Evicted], None] = _raise, *, grace: float = GRACE_SECONDS) -> None:
        self.requested = False
        self.keeper: Keeper | None = None
        self.resumes_from = 0
        """The step of the newest checkpoint that the next attempt can go on from; 0 when there is none."""
        self._deferred = False
        self._end: float | None = None
        self._grace = grace
        self._go = go

    def listen(self) -> None:
        """Heed SIGTERM from now on; call it in the main thread."""
        signal.signal(signal.SIGTERM, self._asked)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Within, SIGTERM only sets `requested`: whoever works there stops at a good moment."""
        before, self._deferred = self._deferred, True
        try:
            yield
        finally:
            self._deferred = before

    def left(self) -> float:
        """Seconds until the kubelet kills the pod that it asked to go."""
        return self._grace if self._end is None else self._end - time.monotonic()

    def check(self, doing: str) -> None:
        """Raise Evicted if the pod was asked to go."""
        if self.requested:
            raise self._leaving(doing)

    def sleep(self, seconds: float, *, spare: float | None = None) -> None:
        """Sleep, or raise Evicted as soon as the pod is asked to go; with `spare`, when it has no more seconds left."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if spare is None or self.left() < spare:
                self.check("while waiting")
            time.sleep(min(left, 0.2))

    def _leaving(self, doing: str) -> Evicted:
        if self.keeper:
            self.resumes_from = self.keeper.finish(self.left())
        then = f"goes on from step {self.resumes_from}" if self.resumes_from else "starts over"
        return _evicted(f"{doing}; the next attempt {then}")

    def _asked(self, _signal: int, _frame: FrameType | None) -> None:
        asked, self.requested = self.requested, True
        self._end = self._end or time.monotonic() + self._grace
        if not self._deferred:
            self._go(_evicted("before there was anything to lose; the next attempt does the same"))
        elif not asked and self.keeper and self.keeper.next_stop() > self._grace:
            self._go(self._leaving("in the midst of a step that takes longer than the pod has"))


def _evicted(what: str) -> Evicted:
    return Evicted(f"the node asked the pod to go (SIGTERM) {what}")
