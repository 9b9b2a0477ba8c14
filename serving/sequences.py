"""One answer, from its engine's tokens to text: its turn, its deadline, its stop strings and its figures.

Knows an engine by its Protocol and no HTTP; who may come in was decided before, and is held by a `Place`.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterator
from dataclasses import replace
from typing import NamedTuple

from serving import errors
from serving.admission import Place
from serving.engine.protocol import (
    Delta,
    Engine,
    EngineDown,
    Finish,
    Logprob,
    Request,
    RequestFailed,
    RequestRefused,
)
from serving.metrics import Watch
from serving.text.tokens import TextStream


class Piece(NamedTuple):
    """Some more of an answer."""

    text: str
    tokens: tuple[int, ...]
    """What this piece took, a stop token included."""
    finish: Finish | None
    logprobs: tuple[Logprob, ...] = ()
    """One for each token, if asked for; none for a stop token."""


def numbered(request: Request, number: int) -> Request:
    """The same for the n-th answer: a fixed seed gives different answers, and the same ones again."""
    seed = request.sampling.seed
    if seed is None or number == 0:
        return request
    return replace(request, sampling=replace(request.sampling, seed=(seed + number) % (1 << 63)))


async def stream(
    engine: Engine, request: Request, text: TextStream, *, place: Place, watch: Watch
) -> AsyncGenerator[Piece, None]:
    """Run one request; closing the generator cancels it. Raises an error of `serving.errors`."""
    ended = "abort"
    try:
        with _as_request_errors():
            async with contextlib.aclosing(engine.generate(request)) as deltas:
                while ended == "abort":
                    delta = await _next(deltas, place)
                    place.begin()
                    watch.saw(len(delta.tokens))
                    piece = _piece(delta, text)
                    ended = piece.finish or ended
                    if delta.tokens or piece.finish:
                        yield piece
    except errors.RequestError:
        ended = "error"
        raise
    finally:
        watch.end(ended)


async def _next(deltas: AsyncGenerator[Delta, None], place: Place) -> Delta:
    try:
        async with asyncio.timeout(place.seconds_left()):
            return await anext(deltas)
    except TimeoutError as error:
        raise place.too_late() from error


def _piece(delta: Delta, text: TextStream) -> Piece:
    """A stop token is counted and not shown."""
    visible = len(delta.tokens) - (delta.finish == "stop")
    shown = text.push(delta.tokens[:visible])
    if delta.finish and not text.stopped:
        shown += text.end()
    return Piece(shown, delta.tokens, "stop" if text.stopped else delta.finish, delta.logprobs[:visible])


@contextlib.contextmanager
def _as_request_errors() -> Iterator[None]:
    try:
        yield
    except RequestRefused as error:
        raise errors.BadRequest(str(error)) from error
    except RequestFailed as error:
        raise errors.EngineTrouble(str(error)) from error
    except EngineDown as error:
        raise errors.NotReady(str(error), retry_after=5) from error
