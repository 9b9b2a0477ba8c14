"""vLLM's AsyncLLM as an `Engine`: our requests in its words, its outputs as deltas, its errors as ours.

vLLM schedules, batches and caches; here is only what differs between its contract and ours. Its objects are reached
through a `Library`, since it is installed in one image alone. Knows nothing of how it was started.
"""

import asyncio
import contextlib
import itertools
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from serving.engine import generation
from serving.engine.protocol import (
    AdapterRefused,
    Delta,
    EngineDown,
    Finish,
    Grammar,
    Health,
    Logprob,
    ModelInfo,
    Request,
    RequestFailed,
    RequestRefused,
    Stats,
)
from serving.engine.slot import settings
from serving.engine.vllm.figures import Figures
from serving.engine.vllm.mixes import Mix, Mixes

FEATURES = frozenset(
    {"min_p", "repetition_penalty", "presence_penalty", "frequency_penalty", "logit_bias", "logprobs", "grammar"}
)
NEVER: Mapping[str, tuple[float | None, ...]] = {"typical_p": (None, 1), "no_repeat_ngram_size": (None, 0)}
"""What vLLM has no word for, and values that change nothing; beams are refused likewise."""
_T = TypeVar("_T")
MOST_LOGPROBS = 20
FINISHES: dict[str, Finish] = {"stop": "stop", "length": "length"}


class Library(NamedTuple):
    """What of vLLM is used beside the engine itself."""

    sampling_params: Any
    output_kind: Any
    structured: Any
    lora_request: Any
    engine_dead: type[Exception]
    refused: tuple[type[Exception], ...]
    """What its errors of requests that cannot be run are."""


class VllmEngine:
    """An `Engine` over one AsyncLLM."""

    def __init__(
        self, llm: Any, library: Library, *, own: Any, info: ModelInfo, mixes: Mixes, figures: Figures
    ) -> None:
        self.info = info
        self._llm = llm
        self._library = library
        self._reader = settings.Reader(own, info.vocabulary)
        self._mixes = mixes
        self._files = asyncio.Lock()
        self._figures = figures
        self._numbers = itertools.count(1)
        self._running: set[str] = set()
        self._last_sign = time.monotonic()
        self._stopped = ""

    async def generate(self, request: Request) -> AsyncGenerator[Delta, None]:
        """See `Engine.generate`. vLLM does not tell when a request's turn comes: its first token says so."""
        generation.refuse(request, self.info)
        params = self._params(request)
        name = str(next(self._numbers))
        with self._translated():
            async with self._mix(request.adapters) as lora:
                prompt = {"prompt_token_ids": list(request.prompt)}
                stream = self._llm.generate(prompt, params, name, lora_request=lora)
                with self._counted(name, len(request.prompt)):
                    async with contextlib.aclosing(stream) as outputs:
                        async for delta in self._deltas(outputs, request):
                            yield delta

    async def load_adapter(self, adapter: str, folder: Path) -> None:
        """See `Engine.load_adapter`; vLLM reads it once now, so that what it refuses is refused here."""
        await asyncio.shield(self._alone(lambda: self._mixes.add(adapter, folder)))
        try:
            async with self._mix({adapter: 1.0}) as lora:
                taken = await self._llm.add_lora(lora)
        except Exception as error:
            await self.unload_adapter(adapter)
            if down := self._down():
                raise EngineDown(down) from error
            raise AdapterRefused(f"vLLM does not take it: {error}") from error
        if not taken:
            await self.unload_adapter(adapter)
            raise AdapterRefused("vLLM does not take it, and its log says why")

    async def unload_adapter(self, adapter: str) -> None:
        """See `Engine.unload_adapter`."""
        await self._forget(await asyncio.shield(self._alone(lambda: self._mixes.remove(adapter))))

    def health(self) -> Health:
        """See `Engine.health`."""
        down = self._down()
        return Health(not down, down, time.monotonic() - self._last_sign if self._running else 0.0)

    def stats(self) -> Stats:
        """See `Engine.stats`."""
        return self._figures.stats()

    async def stop(self) -> None:
        """See `Engine.stop`."""
        self._stopped = self._stopped or "the engine was stopped"
        with contextlib.suppress(self._library.engine_dead):
            await self._llm.abort(list(self._running))
        await asyncio.to_thread(self._llm.shutdown)

    def _down(self) -> str:
        """Why vLLM works no more, or an empty string."""
        return self._stopped or (f"vLLM has died: {self._llm.dead_error}" if self._llm.errored else "")

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """Errors of vLLM's as ours."""
        if down := self._down():
            raise EngineDown(down)
        try:
            yield
        except (RequestRefused, RequestFailed, EngineDown):
            raise
        except self._library.refused as error:
            raise RequestRefused(str(error)) from error
        except Exception as error:
            if isinstance(error, self._library.engine_dead) or self._down():
                raise EngineDown(self._down() or str(error)) from error
            raise RequestFailed(f"{type(error).__name__}: {error}") from error

    @contextlib.asynccontextmanager
    async def _mix(self, strengths: Mapping[str, float]) -> AsyncIterator[Any]:
        """Adapters as one LoRARequest; None for the bare base."""
        if not strengths:
            yield None
            return
        holding = self._alone(lambda: (self._mixes.hold(strengths), self._mixes.superfluous()))
        try:
            mix, gone = await asyncio.shield(holding)
        except asyncio.CancelledError:  # who asked has gone, while a thread writes on
            holding.add_done_callback(self._unasked)
            raise
        try:
            await self._forget(gone)
            yield mix and self._library.lora_request(mix.name, mix.number, str(mix.folder))
        finally:
            self._mixes.release(mix)

    def _alone(self, change: Callable[[], _T]) -> asyncio.Task[_T]:
        """A change of the mixes in a thread, one after the other; shielded it ends though nobody waits any more."""

        async def run() -> _T:
            async with self._files:
                return await asyncio.to_thread(change)

        return asyncio.create_task(run())

    def _unasked(self, holding: asyncio.Task[tuple[Mix | None, list[Mix]]]) -> None:
        if not holding.cancelled() and holding.exception() is None:
            self._mixes.release(holding.result()[0])

    async def _forget(self, mixes: list[Mix]) -> None:
        for mix in mixes:
            with contextlib.suppress(
                Exception
            ):  # it may have put it aside already, and a dead engine says so elsewhere
                await self._llm.remove_lora(mix.number)

    @contextlib.contextmanager
    def _counted(self, name: str, prompt: int) -> Iterator[None]:
        if not self._running:
            self._last_sign = time.monotonic()
        self._running.add(name)
        self._figures.prompt_tokens += prompt
        try:
            yield
        finally:
            self._running.discard(name)

    async def _deltas(self, outputs: AsyncIterator[Any], request: Request) -> AsyncIterator[Delta]:
        begun = False
        async for output in outputs:
            self._last_sign = time.monotonic()
            (answer,) = output.outputs
            if answer.finish_reason not in (None, *FINISHES):
                if down := self._down():
                    raise EngineDown(down)
                raise RequestFailed(f"vLLM ended the request: {answer.finish_reason}")
            if not begun:
                begun = True
                yield Delta(())
            tokens = tuple(answer.token_ids)
            self._figures.generated_tokens += len(tokens)
            finish = FINISHES.get(answer.finish_reason)
            if tokens or finish:
                yield Delta(tokens, finish, _logprobs(answer, request.logprobs))

    def _params(self, request: Request) -> Any:
        """The request as SamplingParams: tokens out, nothing decoded, and no end but the one that we name."""
        if request.sampling.num_beams > 1:
            raise RequestRefused("num_beams is not supported by vLLM; leave it out")
        if request.logprobs is not None and request.logprobs > MOST_LOGPROBS:
            raise RequestRefused(f"logprobs is {request.logprobs}; it must be 0 to {MOST_LOGPROBS}")
        read, wish = self._reader.settings(request), request.sampling
        for name, idle in NEVER.items():
            if getattr(wish, name) not in idle:
                raise RequestRefused(f"{name} is not supported by vLLM; leave it out")
        try:
            return self._library.sampling_params(
                temperature=read.temperature if read.sample else 0.0,
                top_k=read.top_k,
                top_p=read.top_p,
                min_p=read.min_p,
                repetition_penalty=read.repetition_penalty,
                presence_penalty=wish.presence_penalty or 0.0,
                frequency_penalty=wish.frequency_penalty or 0.0,
                logit_bias=dict(wish.logit_bias) or None,
                seed=wish.seed,
                max_tokens=request.max_new_tokens,
                min_tokens=request.min_new_tokens,
                ignore_eos=True,
                stop_token_ids=sorted(read.stop_ids),
                logprobs=request.logprobs,
                structured_outputs=self._form(request.grammar),
                detokenize=False,
                output_kind=self._library.output_kind.DELTA,
            )
        except self._library.refused as error:
            raise RequestRefused(str(error)) from error

    def _form(self, grammar: Grammar | None) -> Any:
        """What the answer's form was made of: vLLM follows it with its own library, in its own process."""
        if grammar is None:
            return None
        form = grammar.form
        value = json.dumps(form.value) if form.kind == "json" else form.value
        return self._library.structured(**{form.kind: value})


def _logprobs(answer: Any, wanted: int | None) -> tuple[Logprob, ...]:
    """vLLM's: token to probability and rank, of the chosen token and of the most likely ones."""
    if wanted is None or answer.logprobs is None:
        return ()
    found = []
    for token, likely in zip(answer.token_ids, answer.logprobs, strict=True):
        best = sorted(likely.items(), key=lambda each: each[1].rank)
        top = tuple((other, each.logprob) for other, each in best[:wanted])
        found.append(Logprob(likely[token].logprob, top))
    return tuple(found)
