"""Which Workspaces to look at: each at most once in the queue and never in two hands; now, later, or ever later."""

import heapq
import math
import threading
import time
from collections.abc import Hashable
from typing import Generic, TypeVar

_T = TypeVar("_T", bound=Hashable)
_FIRST, _LONGEST = 1.0, 300.0  # seconds between tries that fail


class Queue(Generic[_T]):
    """A work queue that coalesces: a key added ten times while it waits is worked on once."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._ready: dict[_T, None] = {}  # a set that keeps the order
        self._working: set[_T] = set()
        self._again: set[_T] = set()
        self._due: dict[_T, float] = {}  # when a key is due, once however often it was asked for
        self._later: list[tuple[float, int, _T]] = []  # a heap; what does not match `_due` is void
        self._counter = 0
        self._failures: dict[_T, int] = {}

    def add(self, key: _T) -> None:
        """As soon as possible; if it is in work now, once more after that."""
        with self._condition:
            if key in self._working:
                self._again.add(key)
            else:
                self._ready[key] = None
                self._condition.notify()

    def add_after(self, key: _T, seconds: float) -> None:
        """Not before `seconds` have passed, unless something else adds it; of two times the earlier holds."""
        due = time.monotonic() + seconds
        with self._condition:
            if due >= self._due.get(key, math.inf):
                return
            self._due[key] = due
            self._counter += 1
            heapq.heappush(self._later, (due, self._counter, key))
            self._condition.notify()

    def take(self) -> _T:
        """Wait for a key; it is in the caller's hands until `done` or `failed`."""
        with self._condition:
            while True:
                pause = self._promote()
                if self._ready:
                    key = next(iter(self._ready))
                    del self._ready[key]
                    self._due.pop(key, None)  # this look is it; whoever looks says when to look again
                    self._working.add(key)
                    return key
                self._condition.wait(pause)

    def done(self, key: _T) -> None:
        """It went well."""
        with self._condition:
            self._failures.pop(key, None)
            self._hand_back(key)

    def failed(self, key: _T) -> float:
        """It did not: again after a pause that doubles each time; the pause in seconds."""
        with self._condition:
            count = self._failures[key] = self._failures.get(key, 0) + 1
            pause: float = min(_FIRST * 2.0 ** (count - 1), _LONGEST)
            self._hand_back(key)
        self.add_after(key, pause)
        return pause

    def _hand_back(self, key: _T) -> None:
        self._working.discard(key)
        if key in self._again:
            self._again.discard(key)
            self._ready[key] = None
            self._condition.notify()

    def _promote(self) -> float | None:
        """Move what is due; seconds until the next is."""
        now = time.monotonic()
        while self._later and (self._later[0][0] <= now or self._is_void(self._later[0])):
            entry = heapq.heappop(self._later)
            if self._is_void(entry):
                continue
            key = entry[2]
            del self._due[key]
            if key in self._working:
                self._again.add(key)
            else:
                self._ready[key] = None
        return self._later[0][0] - now if self._later else None

    def _is_void(self, entry: tuple[float, int, _T]) -> bool:
        """Whether its key was asked for earlier since, or taken."""
        due, _, key = entry
        return self._due.get(key) != due
