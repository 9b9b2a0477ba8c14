"""Looks at a hub, at registries, at data: what a check does before a GPU is bought. All at once, and bounded together.

What is still under way when a check has ended ends with its process: a dead host keeps neither the answer nor the pod.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")

SECONDS = 45.0
"""For the whole: a user waits for the answer."""

AT_ONCE = 8


class Looks:
    """The looks of one check."""

    def __init__(self, seconds: float = SECONDS) -> None:
        self.late = f"gives no answer within {seconds:.0f} s"
        """How a message about a look that took too long goes on."""
        self._end = time.monotonic() + seconds
        self._turn = threading.Semaphore(AT_ONCE)

    def begin(self, look: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> Future[_T]:
        """Begin one, in a thread that the end of the process does not wait for."""
        future: Future[_T] = Future()

        def run() -> None:
            with self._turn:
                if time.monotonic() < self._end:
                    _fill(future, lambda: look(*args, **kwargs))

        threading.Thread(target=run, daemon=True).start()
        return future

    def found(self, begun: Future[_T], too_late: Exception) -> _T:
        """What it found; raises what it raised, or `too_late`."""
        wait([begun], timeout=max(0.0, self._end - time.monotonic()))
        if not begun.done():
            raise too_late
        return begun.result()


def _fill(future: Future[_T], look: Callable[[], _T]) -> None:
    try:
        future.set_result(look())
    except Exception as error:  # noqa: BLE001 -- whoever waits for it raises it
        future.set_exception(error)
