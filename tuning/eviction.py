"""SIGTERM: the kubelet wants the pod gone. The run ends as `Evicted`, at once or where stopping does no harm."""

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from types import FrameType

from tuning.config import GRACE_SECONDS
from tuning.errors import Evicted


def _raise(error: Evicted) -> None:
    raise error


class Eviction:
    """Whether the pod was asked to go; `go` ends the process where nothing would be lost."""

    def __init__(self, go: Callable[[Evicted], None] = _raise) -> None:
        self.requested = False
        self.resumes_from = 0
        """The step of the newest checkpoint that the next attempt can go on from; 0 when there is none."""
        self._deferred = False
        self._end: float | None = None
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
        return GRACE_SECONDS if self._end is None else self._end - time.monotonic()

    def check(self, doing: str) -> None:
        """Raise Evicted if the pod was asked to go."""
        if self.requested:
            then = f"goes on from step {self.resumes_from}" if self.resumes_from else "starts over"
            raise _evicted(f"{doing}; the next attempt {then}")

    def sleep(self, seconds: float) -> None:
        """Sleep, or raise Evicted as soon as the pod is asked to go."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.check("while waiting")
            time.sleep(min(left, 0.2))

    def _asked(self, _signal: int, _frame: FrameType | None) -> None:
        self.requested = True
        self._end = self._end or time.monotonic() + GRACE_SECONDS
        if not self._deferred:
            self._go(_evicted("before there was anything to lose; the next attempt does the same"))


def _evicted(what: str) -> Evicted:
    return Evicted(f"the node asked the pod to go (SIGTERM) {what}")
