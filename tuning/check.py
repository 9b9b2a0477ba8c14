"""`--check`: what can be known without a GPU and without torch: may the adapter go there, is it there, is there data.

Runs in the operator's image. Everything is asked at once, and the whole is bounded: a user waits for the answer.
"""

import concurrent.futures
import time

from tuning import inputs, outputs
from tuning.config import Result, TuningConfig
from tuning.errors import DataUnreachable, RegistryUnavailable, TuningError
from tuning.places import Places
from tuning.report import log

SECONDS = 45.0
"""For the whole: a dead resolver or host must not keep the answer for longer than a minute."""

AT_ONCE = 8


def check(config: TuningConfig, places: Places, *, seconds: float = SECONDS) -> Result:
    """The adapter by digest if it was made already, else an empty one if nothing speaks against making it."""
    end = time.monotonic() + seconds
    looks = inputs.looks(config, places, seconds=seconds)
    pool = concurrent.futures.ThreadPoolExecutor(AT_ONCE)
    try:
        there = pool.submit(_find, config, places)
        found = {name: pool.submit(look) for name, look in looks.items()}
        silent = RegistryUnavailable(
            f"tuning.output.image: {config.output.image} gives no answer within {seconds:.0f} s"
        )
        if made := _wait(there, end, silent):
            return Result(adapter=made)  # the data is not needed any more
        for name, look in found.items():
            unread = DataUnreachable(f"{name}: no data within {seconds:.0f} s; use a faster server")
            log.info("%s: %s", name, _wait(look, end, unread))
        return Result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _find(config: TuningConfig, places: Places) -> str:
    if config.output.volume and not places.results.is_dir():
        log.info(
            "tuning.output.volumeSource (%s): is not mounted here: it is looked into on the node", config.output.volume
        )
        return ""
    return outputs.find(config, places)


def _wait(future: concurrent.futures.Future[str], end: float, too_late: TuningError) -> str:
    try:
        return future.result(timeout=max(0.0, end - time.monotonic()))
    except TimeoutError:
        raise too_late from None
