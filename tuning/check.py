"""`--check`: what can be known without a GPU and without torch: may the adapter be pushed, is it there, is there data.

Runs in the operator's image. Everything is asked at once, and the whole is bounded: a user waits for the answer.
"""

import concurrent.futures
import time
from pathlib import Path

from tuning import addresses, fetch, registry
from tuning.config import Result, TuningConfig
from tuning.errors import DataUnreachable, RegistryUnavailable, TuningError
from tuning.report import log

SECONDS = 45.0
"""For the whole: a dead resolver or host must not keep the answer for longer than a minute."""

AT_ONCE = 8


def check(config: TuningConfig, secret: Path, *, seconds: float = SECONDS) -> Result:
    """The adapter's digest if it was made already, else an empty one if nothing speaks against making it."""
    end = time.monotonic() + seconds
    policy = addresses.Policy(config.allowed_private_cidrs)
    asked = registry.Registry(config.output.image, secret)
    sources = fetch.sources(config.input.urls, config.training.dataset.dataset_path)
    pool = concurrent.futures.ThreadPoolExecutor(AT_ONCE)
    try:
        there = pool.submit(asked.ask, config.intent)
        peeks = [pool.submit(_peek, source, policy) for source in sources]
        silent = RegistryUnavailable(f"tuning.output.image: {asked.reference} gives no answer within {seconds:.0f} s")
        if digest := _wait(there, end, silent):
            return Result(adapter=f"{asked.reference.name}@{digest}")  # the data is not needed any more
        for source, peek in zip(sources, peeks, strict=True):
            unread = DataUnreachable(f"{source.label}: no data within {seconds:.0f} s; use a faster server")
            log.info("%s: %s", source.label, _wait(peek, end, unread))
        return Result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _peek(source: fetch.Source, policy: addresses.Policy) -> str:
    with addresses.session(policy) as session:  # sessions are not for several threads
        return fetch.peek(source, session, policy)


def _wait(future: concurrent.futures.Future[str], end: float, too_late: TuningError) -> str:
    try:
        return future.result(timeout=max(0.0, end - time.monotonic()))
    except TimeoutError:
        raise too_late from None
