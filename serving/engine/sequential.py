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
from typing import Any, Self

import torch
import transformers

from serving.engine import generation, lora, lora_files
from serving.engine.loading import load_model
from serving.engine.protocol import (
    Delta,
    EngineDown,
    Health,
    ModelInfo,
    Request,
    RequestFailed,
    RequestRefused,
    Stats,
)

log = logging.getLogger("serving.engine")


@dataclass
class Job:
    """Something for the model's thread, and the way back to the event loop that waits for it."""

    work: Callable[["Job"], None]
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)
    answers: "asyncio.Queue[Delta | Exception]" = field(default_factory=asyncio.Queue)
    cancelled: threading.Event = field(default_factory=threading.Event)

    def answer(self, item: Delta | Exception) -> None:
        """Hand something to the waiting coroutine, from any thread."""
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self.answers.put_nowait, item)


class SequentialEngine:
    """An `Engine` over one transformers model."""

    def __init__(self, model: Any, *, threads: int, context: int | None = None) -> None:
        self._model = model
        self._threads = threads
        self._adapters = lora.Adapters(model)
        self._jobs: queue.Queue[Job | None] = queue.Queue()
        self._fatal = ""
        self._last_sign = time.monotonic()
        self._current: Job | None = None
        self._prompt_tokens = self._generated_tokens = self._requests = 0
        self._began = self._seconds = 0.0
        info = generation.describe(model, kind="sequential", concurrency=1)
        self.info: ModelInfo = replace(info, context=min(context or info.context, info.context))
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        threads: int,
        require_gpu: bool = False,
        dtype: str = "auto",
        context: int | None = None,
    ) -> Self:
        """Load a checkpoint and run it once; takes as long as that takes. `context` may only lower the model's."""
        model = load_model(folder, threads=threads, require_gpu=require_gpu, wanted=dtype)
        return cls(model, threads=threads, context=context)

    async def generate(self, request: Request) -> AsyncGenerator[Delta, None]:
        """See `Engine.generate`."""
        self._refuse(request)
        job = Job(lambda job: self._generate(job, request))
        self._submit(job)
        try:
            while True:
                answer = await job.answers.get()
                if isinstance(answer, Exception):
                    raise answer
                yield answer
                if answer.finish is not None:
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
            job.answer(EngineDown(self._fatal))
        await asyncio.to_thread(self._thread.join, 10)

    def _refuse(self, request: Request) -> None:
        """What would break the model itself never reaches its thread."""
        if not request.prompt:
            raise RequestRefused("the prompt has no tokens")
        if not all(0 <= token < self.info.vocabulary for token in request.prompt):
            raise RequestRefused(f"a token of the prompt is outside the vocabulary of {self.info.vocabulary}")
        for name, value in generation.beyond(request).items():
            if value:
                raise RequestRefused(f"{name} is {value}; this engine ({self.info.kind}) does not support it")
        if request.max_new_tokens < 1:
            raise RequestRefused(f"max_new_tokens is {request.max_new_tokens}; it must be at least 1")
        if len(request.prompt) + request.max_new_tokens > self.info.context:
            raise RequestRefused(
                f"{len(request.prompt)} tokens of prompt and {request.max_new_tokens} new ones exceed the model's "
                f"context of {self.info.context}"
            )

    def _submit(self, job: Job) -> None:
        if self._fatal:
            raise EngineDown(self._fatal)
        self._jobs.put(job)

    async def _between_requests(self, change: Callable[[], None]) -> None:
        def work(job: Job) -> None:
            change()
            job.answer(Delta((), "stop"))

        job = Job(work)
        self._submit(job)
        answer = await job.answers.get()
        if isinstance(answer, Exception):
            raise answer

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
            self._explain(job, error)

    def _explain(self, job: Job, error: Exception) -> None:
        """Tell the request what happened; a broken device breaks the engine."""
        if isinstance(error, ValueError):  # ours, or what transformers says of a generation config
            job.answer(RequestRefused(str(error)))
        elif isinstance(error, torch.OutOfMemoryError):
            torch.cuda.empty_cache()
            job.answer(RequestFailed(f"not enough GPU memory for this request: {error}"))
        elif isinstance(error, torch.AcceleratorError):
            self._fatal = f"the GPU failed: {error}"
            job.answer(EngineDown(self._fatal))
        else:
            log.error("a request failed in the engine", exc_info=error)
            job.answer(RequestFailed(f"{type(error).__name__}: {error}"))

    def _fail_waiting(self, job: Job | None) -> None:
        while True:
            if job is not None:
                job.answer(EngineDown(self._fatal))
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return

    def _generate(self, job: Job, request: Request) -> None:
        unknown = request.adapters.keys() - self._adapters.names
        if unknown:
            raise RequestRefused(f"adapter {min(unknown)} is not loaded")
        self._adapters.select(request.adapters)
        config = generation.configure(self._model.generation_config, request)
        stop_ids = frozenset(config.eos_token_id or ())
        if request.sampling.seed is not None:
            torch.manual_seed(request.sampling.seed)
        else:
            torch.seed()
        self._prompt_tokens += len(request.prompt)
        job.answer(Delta(()))
        streamer = None if request.sampling.num_beams > 1 else generation.Streamer(self._told(job), stop_ids)
        prompt = torch.tensor([request.prompt], device=self._model.device)
        output = self._model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            generation_config=config,
            streamer=streamer,
            stopping_criteria=transformers.StoppingCriteriaList([generation.Cancelled(job.cancelled)]),
        )
        if streamer is None:
            found = generation.whole(output[0, len(request.prompt) :].tolist(), stop_ids)
            self._generated_tokens += len(found.tokens)
            job.answer(found)
        elif not streamer.stopped:
            job.answer(Delta((), "length"))

    def _told(self, job: Job) -> Callable[[Delta], None]:
        def tell(delta: Delta) -> None:
            self._last_sign = time.monotonic()
            self._generated_tokens += len(delta.tokens)
            job.answer(delta)

        return tell
