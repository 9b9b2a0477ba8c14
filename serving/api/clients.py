"""What both text interfaces need of the client's side: its patience, and to stop when it has gone."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

import fastapi

from serving import errors

T = TypeVar("T")

LARGE = 50_000
"""Bytes of a body whose text takes some ten milliseconds to become tokens."""


async def while_connected(request: fastapi.Request, work: Coroutine[Any, Any, T]) -> T:
    """Run `work` to its end, or cancel it when the client hangs up."""
    working = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise errors.ClientGone("the client hung up")
        return working.result()
    finally:
        for task in (working, gone):
            task.cancel()
        await asyncio.gather(working, gone, return_exceptions=True)


async def aside(request: fastapi.Request, work: Callable[[], T]) -> T:
    """Work on a request's text, in a thread of its own where there is much: it would hold up everybody's answers.

    Tools and calls of them are text too, so what counts is the whole body.
    """
    size = request.headers.get("content-length", "")
    return work() if size.isdigit() and int(size) < LARGE else await asyncio.to_thread(work)


async def together(works: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """Run them at the same time; the first that fails ends the others."""
    if len(works) == 1:
        return [await works[0]]
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def patience(request: fastapi.Request) -> float | None:
    """How many seconds the client gives its answer, in the header X-Request-Timeout."""
    given = request.headers.get("x-request-timeout")
    if given is None:
        return None
    try:
        seconds = float(given)
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        raise errors.BadRequest(f"the header X-Request-Timeout is {given!r}: it must be a number of seconds above 0")
    return seconds


async def _gone(request: fastapi.Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
