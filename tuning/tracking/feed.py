"""Passes points on to one tracker from a thread of its own: training puts them down and goes on.

What a tracker does not take waits, as far as there is room; then the oldest are dropped. It is asked again with longer
and longer pauses, and the log says once what is wrong, and once more that it works again.
"""

import collections
import threading
import time
from typing import Protocol

from tuning.config import Progress
from tuning.report import log
from tuning.tracking.run import Point

ROOM = 10_000
"""Points that wait."""
AT_ONCE = 500
CLOSE_SECONDS = 10.0
"""For the last points, once the run is over: the node is paid meanwhile."""
FIRST_PAUSE, LONGEST_PAUSE = 2.0, 300.0


class Sink(Protocol):
    """One tracker. Methods raise whatever goes wrong, and are called again with the same."""

    name: str

    def open(self) -> None:
        """Find or make the run."""

    def log(self, points: list[Point]) -> None:
        """Take the points."""

    def close(self, outcome: str) -> None:
        """The run is `finished` or `failed`, or its attempt was `evicted`."""


class Feed:
    """A listener of progress."""

    def __init__(self, sink: Sink, *, room: int = ROOM, first_pause: float = FIRST_PAUSE) -> None:
        self._sink = sink
        self._waiting: collections.deque[Point] = collections.deque()
        self._room = room
        self._first_pause = first_pause
        self._changed = threading.Condition()
        self._over = False
        self._opened = False
        self.dropped = 0
        self._thread: threading.Thread | None = None

    def __call__(self, progress: Progress) -> None:
        """Put the step down; the tracker is asked for the first time when there is one."""
        if (point := Point.of(progress)) is None:
            return
        with self._changed:
            if len(self._waiting) >= self._room:
                self._waiting.popleft()
                self.dropped += 1
            self._waiting.append(point)
            self._changed.notify()
        if self._thread is None:
            self._thread = threading.Thread(target=self._pass_on, name=f"to-{self._sink.name}", daemon=True)
            self._thread.start()

    def close(self, outcome: str, *, seconds: float = CLOSE_SECONDS) -> None:
        """Give the last points a little time, then say how the run ended."""
        if self._thread is None:
            return
        with self._changed:
            self._over = True
            self._changed.notify()
        self._thread.join(seconds)
        left = len(self._waiting)
        if self._thread.is_alive() or left:
            log.warning("%s: %d points were not taken, %d dropped before", self._sink.name, left, self.dropped)
            return
        last = threading.Thread(target=self._end, args=(outcome,), daemon=True)
        last.start()
        last.join(seconds)

    def _end(self, outcome: str) -> None:
        try:
            self._sink.close(outcome)
        except Exception as error:  # noqa: BLE001 -- a tracker's trouble is none of the run's
            log.warning("%s: is not told how the run ended: %s", self._sink.name, error)

    def _pass_on(self) -> None:
        pause, failing = self._first_pause, False
        while points := self._next():
            try:
                if not self._opened:
                    self._sink.open()
                    self._opened = True
                self._sink.log(points)
            except Exception as error:  # noqa: BLE001 -- a tracker's trouble is none of the run's
                if not failing:
                    log.warning(
                        "%s: does not take the run's figures, which goes on without: %s", self._sink.name, error
                    )
                failing = True
                if not self._sleep(pause):
                    return
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                if failing:
                    log.info("%s: takes the run's figures now; %d points were dropped", self._sink.name, self.dropped)
                pause, failing = self._first_pause, False
                self._done(points)

    def _next(self) -> list[Point]:
        """What waits, once something does; empty when the run is over and nothing is left."""
        with self._changed:
            while not self._waiting and not self._over:
                self._changed.wait()
            return list(self._waiting)[:AT_ONCE]

    def _done(self, points: list[Point]) -> None:
        with self._changed:
            taken = set(map(id, points))
            while self._waiting and id(self._waiting[0]) in taken:
                self._waiting.popleft()

    def _sleep(self, seconds: float) -> bool:
        """Whether to try again: not once the run is over."""
        end = time.monotonic() + seconds
        with self._changed:
            while (left := end - time.monotonic()) > 0 and not self._over:
                self._changed.wait(left)
            return not self._over
