"""The engine of most models: all requests advance together, one token a step, and join and leave at any step.

One thread owns the model. Requests, changes of adapters and the few requests that cannot be batched (beams) come to it
through one inbox; changes happen between steps, and what cannot be batched runs between steps too, alone. What could
break a step is refused before it gets here; an error in a step ends the requests that run, and the engine goes on,
unless it happens again and again or the device is gone.
"""

import asyncio
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from serving.engine import generation, lora, lora_files
from serving.engine.outbox import Outbox
from serving.engine.packed import pack
from serving.engine.protocol import (
    Delta,
    EngineDown,
    Health,
    ModelInfo,
    Request,
    RequestRefused,
    Stats,
)
from serving.engine.slot import fits, probe
from serving.engine.slot.kv import Pool
from serving.engine.slot.runner import Runner
from serving.engine.slot.scheduler import Scheduler
from serving.engine.slot.sequence import Sequence
from serving.engine.slot.settings import Reader

log = logging.getLogger("serving.engine")
FEATURES = generation.FEATURES | {"presence_penalty", "frequency_penalty", "logit_bias", "logprobs", "grammar"}
FIRST_CAP = 512
"""Rows are so long at first: longer ones are laid when somebody needs them."""
MOST_FAILURES = 3
"""Failed steps in a row after which the engine is given up."""


@dataclass(eq=False)
class Change:
    """Something done to the adapters between steps, once nobody is in the way."""

    work: Callable[[], None]
    ready: Callable[[], bool]
    outbox: Outbox = field(default_factory=Outbox)


class SlotEngine:
    """An `Engine` over one transformers model; raises Unfit for one that cannot be batched."""

    def __init__(
        self,
        model: Any,
        *,
        threads: int,
        context: int | None = None,
        slots: int | None = None,
        chunk: int | None = None,
    ) -> None:
        gpu = model.device.type == "cuda"
        slots, chunk = slots or (64 if gpu else 32), chunk or (512 if gpu else 128)
        fit = fits.fit(model)
        self._model, self._threads = model, threads
        self._adapters = lora.Adapters(model)
        pack(model, spare_bytes=fits.budget(model.device) // 4)
        free = fits.budget(model.device)
        info = generation.describe(model, kind="slot", concurrency=slots)
        longest, why = fits.context(context, info.context, fit.shape, free)
        self.info: ModelInfo = replace(info, context=longest, features=FEATURES, notes=(why,) if why else ())
        self._reader = Reader(model.generation_config, info.vocabulary)
        if unknown := self._reader.unknown():
            raise fits.Unfit(f"its generation_config sets {unknown}, which only transformers' own generate obeys")
        pool = Pool(fit.shape, budget=free, slots=slots, cap=min(FIRST_CAP, longest))
        runner = Runner(model, pool, self._adapters, limit=fit.limit)
        probe.check(model, runner, pool)
        self._scheduler = Scheduler(pool, runner, chunk=chunk)
        self._inbox: queue.SimpleQueue[Sequence | Change | None] = queue.SimpleQueue()
        self._changes: deque[Change] = deque()
        self._alone: deque[Sequence] = deque()
        self._runs_alone = False
        """Whether the first of these runs."""
        self._known: set[str] = set()
        self._fatal, self._failures, self._last_sign = "", 0, time.monotonic()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    async def generate(self, request: Request) -> AsyncGenerator[Delta, None]:
        """See `Engine.generate`."""
        sequence = self._sequence(request)
        self._submit(sequence)
        try:
            while True:
                delta = await sequence.outbox.next()
                yield delta
                if delta.finish is not None:
                    return
        finally:
            sequence.cancelled = True

    async def load_adapter(self, adapter: str, folder: Path) -> None:
        """See `Engine.load_adapter`; files are read beside running requests, weights are added between steps."""
        pairs = await asyncio.to_thread(lora_files.read, folder, self._adapters.linears)
        await self._between_steps(lambda: self._adapters.add(adapter, pairs), lambda: True)
        self._known.add(adapter)

    async def unload_adapter(self, adapter: str) -> None:
        """See `Engine.unload_adapter`."""
        self._known.discard(adapter)

        def remove() -> None:
            self._adapters.remove(adapter)
            self._scheduler.pool.forget(adapter)

        await self._between_steps(remove, lambda: not self._uses(adapter))

    def health(self) -> Health:
        """See `Engine.health`."""
        alive = self._thread.is_alive() and not self._fatal
        stalled = time.monotonic() - self._last_sign if self._busy() else 0.0
        return Health(alive, self._fatal or ("" if alive else "the engine's thread has ended"), stalled)

    def stats(self) -> Stats:
        """See `Engine.stats`."""
        stats, alone = self._scheduler.stats(), int(self._runs_alone)
        waiting = stats.waiting + len(self._alone) - alone + self._inbox.qsize()
        return stats._replace(running=stats.running + alone, waiting=max(0, waiting))

    async def stop(self) -> None:
        """See `Engine.stop`."""
        self._fatal = self._fatal or "the engine was stopped"
        self._inbox.put(None)
        await asyncio.to_thread(self._thread.join, 10)

    def _sequence(self, request: Request) -> Sequence:
        """What would break a step never reaches it; raises RequestRefused."""
        generation.refuse(request, self.info)
        settings = self._reader.settings(request)
        if unknown := request.adapters.keys() - self._known:
            raise RequestRefused(f"adapter {min(unknown)} is not loaded")
        strengths = {adapter: strength for adapter, strength in request.adapters.items() if strength != 0}
        return Sequence(request, settings, Outbox(), list(request.prompt), strengths)

    def _submit(self, item: Sequence | Change) -> None:
        if self._fatal:
            raise EngineDown(self._fatal)
        self._inbox.put(item)

    async def _between_steps(self, work: Callable[[], None], ready: Callable[[], bool]) -> None:
        change = Change(work, ready)
        self._submit(change)
        await change.outbox.next()

    def _busy(self) -> bool:
        return self._scheduler.busy or bool(self._alone)

    def _uses(self, adapter: str) -> bool:
        return self._scheduler.uses(adapter) or any(adapter in each.strengths for each in self._alone)

    def _run(self) -> None:
        torch.set_num_threads(self._threads)  # each thread that computes has its own count
        try:
            with torch.inference_mode():
                while not self._fatal:
                    self._take()
                    self._change()
                    self._guarded(self._run_alone)
                    self._guarded(self._step)
        except Exception as error:  # not even empty rows could be had
            log.exception("the engine cannot go on")
            self._fatal = self._fatal or f"{type(error).__name__}: {error}"
        finally:
            self._fail_all()

    def _take(self) -> None:
        """Empty the inbox; with nothing to do, sleep until something comes."""
        while not (self._fatal or (self._inbox.empty() and self._busy())):
            item = self._inbox.get()
            if isinstance(item, Change):
                self._changes.append(item)
            elif item is not None:
                (self._alone if item.request.sampling.num_beams > 1 else self._scheduler.waiting).append(item)
            self._last_sign = time.monotonic()
            if isinstance(item, Change) and self._inbox.empty():
                return

    def _change(self) -> None:
        while self._changes and self._changes[0].ready():
            change = self._changes.popleft()
            try:
                change.work()
                change.outbox.tell(Delta((), "stop"))
            except Exception as error:  # noqa: BLE001 (the one who asked is told)
                change.outbox.tell(error)
            self._scheduler.changed = True

    def _guarded(self, work: Callable[[], None]) -> None:
        """Do something with the model; what goes wrong ends the requests that run, the third time the engine."""
        try:
            work()
        except Exception as error:
            self._failures += 1
            log.exception("a step of the engine failed")
            gone = isinstance(error, torch.AcceleratorError) and not isinstance(error, torch.OutOfMemoryError)
            if gone or self._failures >= MOST_FAILURES:
                self._fatal = f"the GPU failed: {error}" if gone else f"{MOST_FAILURES} steps failed, at last: {error}"
            else:
                self._scheduler.recover(error)

    def _step(self) -> None:
        if self._scheduler.busy:
            self._scheduler.step()
            self._last_sign = time.monotonic()
            self._failures = 0

    def _run_alone(self) -> None:
        """One request that cannot be batched, the others wait meanwhile."""
        if not self._alone:
            return
        sequence = self._alone[0]

        def sign() -> bool:
            self._last_sign = time.monotonic()
            return sequence.cancelled or bool(self._fatal)

        self._runs_alone = True
        try:
            self._adapters.select(sequence.strengths)
            generation.alone(self._model, sequence.request, sign, sequence.outbox.tell)
        except Exception as error:  # noqa: BLE001 (its own)
            sequence.outbox.tell(generation.explained(error))
        finally:
            self._runs_alone = False
            self._alone.popleft()
            self._scheduler.changed = True

    def _fail_all(self) -> None:
        down = EngineDown(self._fatal)
        self._scheduler.fail(down, waiting=True)
        left: list[Sequence | Change | None] = [*self._alone, *self._changes]
        while not self._inbox.empty():
            left.append(self._inbox.get())
        for item in left:
            if item is not None:
                item.outbox.tell(down)
