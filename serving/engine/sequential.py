"""The first engine: transformers' `generate`, one request at a time, in the order they come.

One thread owns the model: requests and changes of adapters wait in one queue, so a change happens between requests and
never under one. Exact by construction (caches, rope switches and sampling are transformers' own) and slow under load:
`ModelInfo.concurrency` says 1.
"""

import asyncio
import logging
import queue
import threading
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from serving.engine import generation, lora, lora_files
from serving.engine.outbox import Outbox
from serving.engine.protocol import (
    Delta,
    EngineDown,
    Health,
    ModelInfo,
    Request,
    RequestRefused,
    Stats,
)

log = logging.getLogger("serving.engine")


@dataclass
class Job:
    """Something for the model's thread, and the way back to who waits for it."""

    work: Callable[["Job"], None]
    outbox: Outbox = field(default_factory=Outbox)
    cancelled: threading.Event = field(default_factory=threading.Event)


class SequentialEngine:
    """An `Engine` over one transformers model."""

    def __init__(self, model: Any, *, threads: int, context: int | None = None, notes: tuple[str, ...] = ()) -> None:
        self._model = model
        self._threads = threads
        self._adapters = lora.Adapters(model)
        self._jobs: queue.Queue[Job | None] = queue.Queue()
        self._fatal = ""
        self._last_sign = time.monotonic()
        self._current: Job | None = None
        self._prompt_tokens = self._generated_tokens = self._requests = 0
        self._began = self._seconds = 0.0
        info = generation.describe(model, kind=generation.SEQUENTIAL, concurrency=1)
        self.info: ModelInfo = replace(info, context=min(context or info.context, info.context), notes=notes)
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    async def generate(self, request: Request) -> AsyncGenerator[Delta, None]:
        """See `Engine.generate`."""
        generation.refuse(request, self.info)
        job = Job(lambda job: self._generate(job, request))
        self._submit(job)
        try:
            while True:
                delta = await job.outbox.next()
                yield delta
                if delta.finish is not None:
                    return
        finally:
            job.cancelled.set()

    async def load_adapter(self, adapter: str, folder: Path) -> None:
        """See `Engine.load_adapter`; files are read beside running requests, weights are added between them."""
        pairs = await asyncio.to_thread(lora_files.read, folder, self._adapters.linears)
        await self._between_requests(lambda: self._adapters.add(adapter, pairs))

    async def unload_adapter(self, adapter: str) -> None:
        """See `Engine.unload_adapter`."""
        await self._between_requests(lambda: self._adapters.remove(adapter))

    def health(self) -> Health:
        """See `Engine.health`."""
        alive = self._thread.is_alive() and not self._fatal
        stalled = time.monotonic() - self._last_sign if self._current else 0.0
        return Health(alive, self._fatal or ("" if alive else "the engine's thread has ended"), stalled)

    def stats(self) -> Stats:
        """See `Engine.stats`; a step is a whole request here, and adapters wait in the same queue."""
        running = int(self._current is not None)
        done = (self._prompt_tokens, self._generated_tokens)
        return Stats(running, self._jobs.qsize(), float(running), *done, 0, 0, 0, self._requests, self._seconds)

    async def stop(self) -> None:
        """See `Engine.stop`."""
        self._fatal = self._fatal or "the engine was stopped"
        self._jobs.put(None)
        if job := self._current:
            job.cancelled.set()
            job.outbox.tell(EngineDown(self._fatal))
        await asyncio.to_thread(self._thread.join, 10)

    def _submit(self, job: Job) -> None:
        if self._fatal:
            raise EngineDown(self._fatal)
        self._jobs.put(job)

    async def _between_requests(self, change: Callable[[], None]) -> None:
        def work(job: Job) -> None:
            change()
            job.outbox.tell(Delta((), "stop"))

        job = Job(work)
        self._submit(job)
        await job.outbox.next()

    def _run(self) -> None:
        torch.set_num_threads(self._threads)  # each thread that computes has its own count
        with torch.inference_mode():
            while (job := self._jobs.get()) is not None and not self._fatal:
                self._current, self._last_sign = job, time.monotonic()
                self._began = self._last_sign
                self._work(job)
                self._requests += 1
                self._seconds += time.monotonic() - self._began
                self._current = None
        self._fail_waiting(job)

    def _work(self, job: Job) -> None:
        try:
            if not job.cancelled.is_set():
                job.work(job)
        except Exception as error:  # noqa: BLE001 (whatever it is, the thread must live)
            told = generation.explained(error)
            self._fatal = self._fatal or (str(told) if isinstance(told, EngineDown) else "")
            job.outbox.tell(told)

    def _fail_waiting(self, job: Job | None) -> None:
        while True:
            if job is not None:
                job.outbox.tell(EngineDown(self._fatal))
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return

    def _generate(self, job: Job, request: Request) -> None:
        unknown = request.adapters.keys() - self._adapters.names
        if unknown:
            raise RequestRefused(f"adapter {min(unknown)} is not loaded")
        self._adapters.select(request.adapters)
        self._prompt_tokens += len(request.prompt)
        generation.alone(self._model, request, job.cancelled.is_set, self._told(job))

    def _told(self, job: Job) -> Callable[[Delta], None]:
        def tell(delta: Delta) -> None:
            self._last_sign = time.monotonic()
            self._generated_tokens += len(delta.tokens)
            job.outbox.tell(delta)

        return tell
