"""One request on its way through the engine, and the way back to the coroutine that waits for it."""

import asyncio
import contextlib
import itertools
from collections import deque
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field

from serving.engine.protocol import Delta, Finish, Logprob, Request
from serving.engine.slot.kv import Row
from serving.engine.slot.settings import Settings

_numbers = itertools.count()


class Outbox:
    """What the engine's thread has to say to one coroutine; what the coroutine was too slow for is told at once."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._said: deque[Delta | Exception] = deque()
        self.news = asyncio.Event()

    def put(self, item: Delta | Exception) -> None:
        """From the engine's thread; nobody looks before `wake`."""
        self._said.append(item)

    async def get(self) -> Delta | Exception:
        """What was said since the last time, tokens as one delta."""
        while not self._said:
            self.news.clear()
            await self.news.wait()
        first = self._said.popleft()
        if not self._said or isinstance(first, Exception):
            return first
        deltas = [first]
        while self._said and not isinstance(self._said[0], Exception):
            deltas.append(self._said.popleft())  # type: ignore[arg-type]  # just looked at
        return _merged(deltas)

    @staticmethod
    def wake(outboxes: Iterable["Outbox"]) -> None:
        """Let the coroutines look, with one call for each event loop."""
        loops: dict[asyncio.AbstractEventLoop, list[asyncio.Event]] = {}
        for outbox in outboxes:
            loops.setdefault(outbox.loop, []).append(outbox.news)
        for loop, events in loops.items():
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(_set, events)


def _set(events: list[asyncio.Event]) -> None:
    for event in events:
        event.set()


def _merged(deltas: list[Delta]) -> Delta:
    tokens = tuple(token for delta in deltas for token in delta.tokens)
    return Delta(tokens, deltas[-1].finish, tuple(each for delta in deltas for each in delta.logprobs))


@dataclass(eq=False, slots=True)
class Sequence:
    """The tokens of one request so far; its row has the keys and values of the first `row.count` of them."""

    request: Request
    settings: Settings
    outbox: Outbox
    tokens: list[int]
    strengths: Mapping[str, float]
    """The adapters that count: those of strength 0 are left out."""
    row: Row | None = None
    long: bool = False
    """Its positions are turned by longrope's long factors."""
    cancelled: bool = False
    number: int = field(default_factory=_numbers.__next__)

    @property
    def need(self) -> int:
        """How long it can become."""
        return len(self.request.prompt) + self.request.max_new_tokens

    @property
    def generated(self) -> int:
        """How many tokens it has answered with."""
        return len(self.tokens) - len(self.request.prompt)

    @property
    def salt(self) -> Hashable:
        """What keys and values depend on beside the tokens before them."""
        return frozenset(self.strengths.items()), self.long

    def accept(self, token: int, logprob: Logprob | None) -> Finish | None:
        """Take the next token and tell it; whether it was the last one."""
        self.tokens.append(token)
        finish: Finish | None = None
        if token in self.settings.stop_ids:
            finish = "stop"
        elif self.generated >= self.request.max_new_tokens:
            finish = "length"
        self.outbox.put(Delta((token,), finish, (logprob,) if logprob else ()))
        return finish
