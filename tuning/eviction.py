"""SIGTERM: the kubelet wants the pod gone. The run ends as `Evicted`, at once or where stopping does no harm."""

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from types import FrameType

from tuning.errors import Evicted


def _raise(error: Evicted) -> None:
    raise error


class Eviction:
    """Whether the pod was asked to go; `go` ends the process where nothing would be lost."""

    def __init__(self, go: Callable[[Evicted], None] = _raise) -> None:
        self.requested = False
        self._deferred = False
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

    def check(self, doing: str) -> None:
        """Raise Evicted if the pod was asked to go."""
        if self.requested:
            raise _evicted(doing)

    def sleep(self, seconds: float) -> None:
        """Sleep, or raise Evicted as soon as the pod is asked to go."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.check("while waiting")
            time.sleep(min(left, 0.2))

    def _asked(self, _signal: int, _frame: FrameType | None) -> None:
        self.requested = True
        if not self._deferred:
            self._go(_evicted("before there was anything to lose"))


def _evicted(doing: str) -> Evicted:
    return Evicted(f"the node asked the pod to go (SIGTERM) {doing}; the next attempt starts over")
