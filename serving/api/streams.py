"""Answers that come piece by piece: several at once, as server-sent events, with a sign of life while they wait."""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Sequence
from typing import TypeVar

T = TypeVar("T")

KEEP_ALIVE = ": keep-alive\n\n"
DONE = "data: [DONE]\n\n"


def event(value: object) -> str:
    """One server-sent event."""
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"


async def merged(streams: Sequence[AsyncGenerator[T, None]]) -> AsyncGenerator[tuple[int, T], None]:
    """What any of them brings, with its number; the first that fails ends all."""
    if len(streams) == 1:
        async with contextlib.aclosing(streams[0]) as stream:
            async for item in stream:
                yield 0, item
        return
    items: asyncio.Queue[tuple[int, T] | Exception | None] = asyncio.Queue()

    async def pump(number: int, stream: AsyncGenerator[T, None]) -> None:
        try:
            async with contextlib.aclosing(stream):
                async for item in stream:
                    items.put_nowait((number, item))
            items.put_nowait(None)
        except Exception as error:  # noqa: BLE001 (raised where the items are taken)
            items.put_nowait(error)

    tasks = [asyncio.ensure_future(pump(number, stream)) for number, stream in enumerate(streams)]
    left = len(tasks)
    try:
        while left:
            brought = await items.get()
            if isinstance(brought, Exception):
                raise brought
            if brought is None:
                left -= 1
            else:
                yield brought
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def kept_alive(
    first: "asyncio.Future[str]", rest: AsyncGenerator[str, None], seconds: float
) -> AsyncGenerator[str, None]:
    """A stream whose first event was asked for already; comments stand in for it while it is not there."""
    async with contextlib.aclosing(rest):
        try:
            while not (await asyncio.wait({first}, timeout=seconds))[0]:
                yield KEEP_ALIVE
            yield first.result()
        finally:
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
        async for each in rest:
            yield each
