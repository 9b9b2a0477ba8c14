"""From an engine's thread to the coroutine that waits for it, on its own event loop."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Iterable

from serving.engine.protocol import Delta


class Outbox:
    """What the thread has to say to one coroutine; what the coroutine was too slow for is told at once."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._said: deque[Delta | Exception] = deque()
        self._news = asyncio.Event()

    def put(self, item: Delta | Exception) -> None:
        """From the thread; nobody looks before `wake`."""
        self._said.append(item)

    def tell(self, item: Delta | Exception) -> None:
        """`put` and `wake`."""
        self.put(item)
        self.wake([self])

    async def next(self) -> Delta:
        """What was said since the last time, tokens as one delta; raises an error that was said."""
        while not self._said:
            self._news.clear()
            await self._news.wait()
        deltas: list[Delta] = []
        while self._said and isinstance(self._said[0], Delta):
            deltas.append(self._said.popleft())  # type: ignore[arg-type]  # just looked at
        if deltas:
            return deltas[0] if len(deltas) == 1 else _merged(deltas)
        raise self._said.popleft()  # type: ignore[misc]  # what is no delta is an error

    @staticmethod
    def wake(outboxes: Iterable["Outbox"]) -> None:
        """Let the coroutines look, with one call for each event loop."""
        loops: dict[asyncio.AbstractEventLoop, list[asyncio.Event]] = {}
        for outbox in outboxes:
            loops.setdefault(outbox._loop, []).append(outbox._news)  # noqa: SLF001 (its own class)
        for loop, events in loops.items():
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(_set, events)


def _set(events: list[asyncio.Event]) -> None:
    for event in events:
        event.set()


def _merged(deltas: list[Delta]) -> Delta:
    tokens = tuple(token for delta in deltas for token in delta.tokens)
    return Delta(tokens, deltas[-1].finish, tuple(each for delta in deltas for each in delta.logprobs))
