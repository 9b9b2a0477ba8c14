"""One answer, from its engine's tokens to text: its turn, its deadline, its stop strings and its figures.

Knows an engine by its Protocol and no HTTP; who may come in was decided before, and is held by a `Place`.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

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
    ended, timer = "abort", _Timer(place)
    try:
        with _as_request_errors():
            async with contextlib.aclosing(engine.generate(request)) as deltas:
                while ended == "abort":
                    delta = await timer.before_it_is_late(deltas)
                    place.begin()
                    watch.saw(len(delta.tokens))
                    piece = _piece(delta, text)
                    ended = piece.finish or ended
                    if delta.tokens or piece.finish:
                        yield piece
    except Exception:
        ended = "error"
        raise
    finally:
        timer.stop()
        watch.end(ended)


class _Timer:
    """Ends a wait when a place's time is over, as `asyncio.timeout` does, but at no cost for each token."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._waits: asyncio.Task[Any] | None = None
        self._late = False
        self._set()

    async def before_it_is_late(self, deltas: AsyncGenerator[Delta, None]) -> Delta:
        """The next delta; raises what the place says of the time."""
        if self._late:
            raise self._place.too_late()
        self._waits = asyncio.current_task()
        try:
            return await anext(deltas)
        except asyncio.CancelledError:
            if self._late and self._waits is not None and not self._waits.uncancel():
                raise self._place.too_late() from None
            raise
        finally:
            self._waits = None

    def stop(self) -> None:
        """Nothing is waited for any more."""
        self._handle.cancel()

    def _set(self) -> None:
        self._handle = asyncio.get_running_loop().call_later(self._place.seconds_left(), self._ring)

    def _ring(self) -> None:
        if self._place.seconds_left() > 0:  # its turn has come since: there is another deadline
            self._set()
            return
        self._late = True
        if self._waits is not None:
            self._waits.cancel()


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
