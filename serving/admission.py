"""Who may come in: a bounded queue, a polite no, and an orderly end.

Counts requests from the moment they are accepted until their last byte is made; which of them the engine runs and which
wait is the engine's affair. Knows no HTTP and no engine.
"""

import asyncio
import contextlib
import math
import time
from collections.abc import Iterator

from serving import errors

MAX_WAITING = 64


class Admission:
    """Counts the requests inside."""

    def __init__(self, *, max_waiting: int = MAX_WAITING) -> None:
        self.max_waiting = max_waiting
        self.inside = 0
        self.draining = False
        self._seconds = 1.0
        """How long a request takes, smoothed: what Retry-After is made from."""
        self._left = asyncio.Event()

    @contextlib.contextmanager
    def enter(self, concurrency: int) -> Iterator[None]:
        """Hold a place; raises TooBusy or NotReady."""
        if self.draining:
            raise errors.NotReady("the server is shutting down; send the request again", retry_after=1)
        if self.inside >= concurrency + self.max_waiting:
            seconds = min(60, math.ceil(self._seconds))
            raise errors.TooBusy(
                f"{self.inside} requests are running or waiting, no more are taken; try again in {seconds} s",
                retry_after=seconds,
            )
        self.inside += 1
        began = time.monotonic()
        try:
            yield
        finally:
            self.inside -= 1
            self._seconds += 0.2 * (time.monotonic() - began - self._seconds)
            self._left.set()

    async def drain(self, seconds: float) -> bool:
        """Take nothing new and wait until all are out; False if some are still inside at the deadline."""
        self.draining = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.inside:
                    self._left.clear()
                    await self._left.wait()
        return not self.inside
