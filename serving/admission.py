"""Who may come in: a bounded queue, a polite no, deadlines, and an orderly end.

Counts answers from the moment they are accepted until their last byte is made; which of them the engine runs and which
wait is the engine's affair, which tells each `Place`. Knows no HTTP and no engine.
"""

import asyncio
import contextlib
import math
import time
from collections.abc import Iterator, Sequence

from serving import errors
from serving.settings import Limits

LEAST_WAITING = 64


class Place:
    """One answer's place inside: in the queue first, until its engine has begun with it."""

    def __init__(self, tokens: int, *, deadline: float, wait_until: float) -> None:
        self.tokens = tokens
        self.entered = time.monotonic()
        self.waits = True
        self._deadline = deadline
        self._wait_until = wait_until

    def begin(self) -> None:
        """It has left the queue."""
        self.waits = False

    def seconds_left(self) -> float:
        """Until `too_late` is right; 0 when it is."""
        ends = min(self._deadline, self._wait_until) if self.waits else self._deadline
        return max(0.0, ends - time.monotonic())

    def too_late(self) -> errors.RequestError:
        """What to tell when no time is left."""
        waited = f"{time.monotonic() - self.entered:.0f} s"
        if self.waits and self._wait_until < self._deadline:
            return errors.NotReady(f"the request waited {waited} and did not get its turn; try again", retry_after=5)
        return errors.TooLate(f"the answer was not finished within {waited}; ask for fewer tokens, or stream it")


class Admission:
    """Counts the answers inside."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.draining = False
        self._places: set[Place] = set()
        self._seconds = 1.0
        """How long an answer takes, smoothed: what Retry-After is made from."""
        self._left = asyncio.Event()

    @property
    def inside(self) -> int:
        """Answers that run or wait."""
        return len(self._places)

    def check(self, concurrency: int, prompts: Sequence[int] = (0,)) -> None:
        """Refuse what `enter` would refuse now."""
        if self.draining:
            raise errors.NotReady("the server is shutting down; send the request again", retry_after=1)
        waiting = self.limits.waiting
        most = concurrency + (max(LEAST_WAITING, 4 * concurrency) if waiting is None else waiting)
        if len(prompts) > most:
            raise errors.BadRequest(f"the request asks for {len(prompts)} answers; at most {most} are made at a time")
        if self.inside + len(prompts) > most:
            raise self._busy(f"{self.inside} requests are running or waiting, no more are taken")
        tokens = sum(place.tokens for place in self._places if place.waits)
        if tokens and tokens + sum(prompts) > self.limits.waiting_tokens:
            raise self._busy(f"prompts with {tokens} tokens are waiting, no more are taken")

    @contextlib.contextmanager
    def enter(
        self, concurrency: int, prompts: Sequence[int] = (0,), *, seconds: float | None = None
    ) -> Iterator[list[Place]]:
        """Hold a place for each prompt, given by its tokens; raises TooBusy, NotReady or BadRequest."""
        self.check(concurrency, prompts)
        now = time.monotonic()
        deadline = now + min(seconds or math.inf, self.limits.request_seconds)
        wait_until = now + self.limits.wait_seconds
        places = [Place(tokens, deadline=deadline, wait_until=wait_until) for tokens in prompts]
        self._places.update(places)
        try:
            yield places
        finally:
            self._places.difference_update(places)
            self._seconds += 0.2 * (time.monotonic() - now - self._seconds)
            self._left.set()

    async def drain(self, seconds: float) -> bool:
        """Take nothing new and wait until all are out; False if some are still inside at the deadline."""
        self.draining = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._places:
                    self._left.clear()
                    await self._left.wait()
        return not self._places

    def _busy(self, why: str) -> errors.TooBusy:
        seconds = min(60, math.ceil(self._seconds))
        return errors.TooBusy(f"{why}; try again in {seconds} s", retry_after=seconds)
