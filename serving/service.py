"""What the HTTP handlers stand on: the engine, the text side, the adapters and the door, from their start to their end.

Loading runs beside the HTTP server, so `/health` can say what it waits for. Knows the engine by its Protocol; Ray and
torch are behind the `load` that it is given.
"""

import asyncio
import contextlib
import importlib
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from serving import adapters, admission, errors, sequences
from serving.admission import Place
from serving.config import ServingConfig
from serving.engine import protocol
from serving.engine.protocol import Engine, Request
from serving.metrics import Metrics, Moment
from serving.sequences import Piece
from serving.settings import Limits
from serving.text.chat import Chat
from serving.text.tokens import TextStream

log = logging.getLogger("serving")

STALLED_SECONDS = 600.0
"""A request that produces nothing for so long has lost its engine."""


class Grammar(protocol.Grammar, Protocol):
    """What an engine asks, and a copy for another answer to the same prompt."""

    def fork(self) -> "Grammar":
        """The same from its beginning."""


class Grammars(Protocol):
    """Makes grammars over the model's vocabulary; `serving.text.grammar.Grammars`. Each raises TextRefused."""

    def json(self, schema: Any) -> Grammar:
        """JSON that a schema describes."""

    def regex(self, pattern: str) -> Grammar:
        """Text that matches a regular expression as a whole."""

    def choice(self, texts: Sequence[str]) -> Grammar:
        """One of these texts."""


class Loaded(NamedTuple):
    """What takes long to load."""

    engine: Engine
    chat: Chat

    @property
    def stop_ids(self) -> frozenset[int]:
        """The tokens that end an answer: the model's and the tokenizer's."""
        return self.engine.info.stop_ids | self.chat.tokenizer.stop_ids


class Mix(NamedTuple):
    """Which adapters a request uses, and the chat template that fits them."""

    strengths: Mapping[str, float]
    """Adapter id to strength."""
    template: str | None


class Service:
    """One model being served."""

    def __init__(
        self,
        config: ServingConfig,
        *,
        load: Callable[[], Loaded],
        adapters_file: Path,
        source: adapters.Source,
        on_fatal: Callable[[errors.Fatal], None],
        limits: Limits | None = None,
        poll_seconds: float = 1.0,
    ) -> None:
        self.config = config
        self.limits = limits or Limits()
        self.admission = admission.Admission(self.limits)
        self.metrics = Metrics(config.name, self._moment)
        self.adapters = adapters.AdapterSet(adapters_file, source, self._engine)
        self.failure = ""
        self.started = int(time.time())
        self._load = load
        self._on_fatal = on_fatal
        self._poll_seconds = poll_seconds
        self._loaded: asyncio.Future[Loaded] | None = None
        self._grammars: Grammars | None = None
        self._disagreed: frozenset[str] = frozenset()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Load and keep watch as long as the HTTP server runs."""
        self._loaded = asyncio.get_running_loop().create_future()
        works = (self._bring_up(), self._watch_engine(), self.adapters.watch(seconds=self._poll_seconds))
        tasks = [asyncio.create_task(self._guard(work)) for work in works]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if loaded := self.loaded:
                await loaded.engine.stop()

    @property
    def loaded(self) -> Loaded | None:
        """Engine and text, once they are there."""
        done = self._loaded is not None and self._loaded.done() and not self._loaded.exception()
        return self._loaded.result() if self._loaded is not None and done else None

    def unready(self) -> str:
        """Why requests are not taken now; an empty string if they are."""
        if self.failure:
            return self.failure
        if self.loaded is None:
            return "the model is being loaded"
        if not self.adapters.complete:
            return self.adapters.lacking() or "adapters are being loaded"
        return "the server is shutting down" if self.admission.draining else ""

    def require(self) -> Loaded:
        """Engine and text; raises NotReady."""
        reason, loaded = self.unready(), self.loaded
        if reason or loaded is None:
            raise errors.NotReady(reason, retry_after=5)
        return loaded

    def door(self) -> Loaded:
        """The same for who wants answers; raises TooBusy where none could be taken, before anybody reads a prompt."""
        loaded = self.require()
        self.admission.check(loaded.engine.info.concurrency)
        return loaded

    def mix(self, model: str | None, strength: float | None = None) -> Mix:
        """The adapters that a model's name stands for; raises ModelNotFound.

        The served name (or none) is the weighted sum of all adapters, the hub's id the bare base, an adapter's name
        that adapter at its strength, or at the one given. A template that the user gave stands in place of all others.
        """
        listed = self.adapters.loaded()
        base = self.require().chat.tokenizer.template
        if model in (None, self.config.name):
            chosen = list(listed.values())
        elif model in listed:
            chosen = [listed[model]]
        elif model == self.config.model.id:
            chosen = []
        else:
            names = [self.config.name, *listed, self.config.model.id]
            raise errors.ModelNotFound(f"model {model!r} is not served; there are {', '.join(names)}", param="model")
        if strength is not None and model not in listed:
            told = (
                f"adapter_strength is {strength}: it goes with the name of an adapter in model; name one, or leave it"
            )
            raise errors.BadRequest(f"{told} out", param="adapter_strength")
        strengths = {each.id: each.adapter.strength if strength is None else strength for each in chosen}
        active = [each for each in chosen if strengths[each.id] > 0]
        template = self.config.chat_template or self._agreed([each.template for each in active]) or base
        return Mix(strengths, template)

    def grammars(self) -> Grammars:
        """For answers in a given form; the first call takes a second or more, beside the event loop."""
        if self._grammars is None:
            loaded = self.require()
            made = importlib.import_module("serving.text.grammar").Grammars  # imports torch
            self._grammars = made(
                loaded.chat.tokenizer.backend, vocabulary=loaded.engine.info.vocabulary, stop_ids=loaded.stop_ids
            )
        return self._grammars

    @contextlib.contextmanager
    def enter(self, requests: Sequence[Request], mix: Mix, *, seconds: float | None = None) -> Iterator[list[Place]]:
        """Places for these requests, which keep the mix's adapters loaded; raises an error of `serving.errors`."""
        concurrency = self.require().engine.info.concurrency
        prompts = [len(request.prompt) for request in requests]
        with (
            self.admission.enter(concurrency, prompts, seconds=seconds) as places,
            self.adapters.lease(mix.strengths),
        ):
            for adapter in mix.strengths:
                self.metrics.used(adapter.partition("@")[0])
            yield places

    def stream(
        self,
        request: Request,
        place: Place,
        *,
        stops: tuple[str, ...] = (),
        special: bool = False,
        at_once: bool = False,
    ) -> AsyncGenerator[Piece, None]:
        """Run one request that was let in; closing it cancels.

        With `special`, control tokens are shown; `at_once`: nobody sees a piece before the last one is there.
        """
        if self.loaded is None:
            raise errors.NotReady(self.unready())
        engine, chat = self.loaded
        if request.stop_ids is None:
            request = replace(request, stop_ids=self.loaded.stop_ids)
        request = replace(request, at_once=at_once and not stops)  # a stop string is looked for in each token
        text = TextStream(chat.tokenizer.backend, request.prompt, stops=stops, special=special)
        watch = self.metrics.watch(place.entered, len(request.prompt))
        return sequences.stream(engine, request, text, place=place, watch=watch)

    async def drain(self, seconds: float) -> bool:
        """Stop taking work and let what is inside finish; at the deadline the rest fails."""
        drained = await self.admission.drain(seconds)
        if not drained and (loaded := self.loaded):
            log.warning("%d requests were not finished within %.0f s", self.admission.inside, seconds)
            await loaded.engine.stop()
            await self.admission.drain(5)
        return drained

    def _agreed(self, templates: list[str | None]) -> str | None:
        """The one template of all these adapters, or None."""
        kinds = frozenset(template or "" for template in templates)
        if len(kinds) > 1 and kinds != self._disagreed:
            self._disagreed = kinds
            log.warning(
                "the adapters were trained with different chat templates: the base model's is used for their sum"
            )
        return templates[0] if len(kinds) == 1 else None

    def _moment(self) -> Moment | None:
        if self.loaded is None:
            return None
        engine, known = self.loaded.engine, self.adapters
        return Moment(engine.info, engine.stats(), self.admission.draining, tuple(known.loaded()), known.in_use())

    async def _engine(self) -> Engine:
        assert self._loaded is not None
        return (await asyncio.shield(self._loaded)).engine

    async def _bring_up(self) -> None:
        assert self._loaded is not None
        began = time.monotonic()
        loaded = await asyncio.to_thread(self._load)
        self._loaded.set_result(loaded)
        info = loaded.engine.info
        log.info("model loaded in %.1f s: %s on %s", time.monotonic() - began, info.dtype, info.device)

    async def _watch_engine(self) -> None:
        engine = await self._engine()
        while (health := engine.health()).alive and health.stalled_seconds < STALLED_SECONDS:  # noqa: ASYNC110 (polled)
            await asyncio.sleep(self._poll_seconds)
        if not self.admission.draining:
            stalled = f"a request produced nothing for {health.stalled_seconds:.0f} s"
            raise errors.EngineDied(f"the engine is broken: {health.reason or stalled}")

    async def _guard(self, work: Awaitable[None]) -> None:
        """Whatever ends one of the three for good ends the process."""
        try:
            await work
        except errors.Fatal as error:
            self._give_up(error)
        except Exception as error:
            log.exception("the server failed")
            self._give_up(errors.EngineDied(f"{type(error).__name__}: {error}"))

    def _give_up(self, error: errors.Fatal) -> None:
        self.failure = str(error)
        self._on_fatal(error)
