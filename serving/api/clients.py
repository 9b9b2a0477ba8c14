"""What both text interfaces need of the client's side: to stop when it has gone."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import fastapi

from serving import errors

T = TypeVar("T")


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


async def _gone(request: fastapi.Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
