"""`--check`: what can be known without a GPU and without torch: may the adapter go there, is it there, is there data.

Runs in the operator's image. Everything is asked at once, and the whole is bounded: a user waits for the answer.
"""

import concurrent.futures
import time
from typing import TypeVar

from artifacts.weights.errors import HubUnavailable
from tuning import hub, inputs, outputs
from tuning.config import Result, TuningConfig
from tuning.errors import DataUnreachable, ModelFiles, RegistryUnavailable, TuningError
from tuning.places import Places
from tuning.report import log

_T = TypeVar("_T")

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
        asked = pool.submit(hub.look, config, places) if config.model.ask else None
        found = {name: pool.submit(look) for name, look in looks.items()}
        silent = RegistryUnavailable(
            f"tuning.output.image: {config.output.image} gives no answer within {seconds:.0f} s"
        )
        made = _wait(there, end, silent)
        away = ModelFiles(HubUnavailable(f"{config.model.what}: gives no answer within {seconds:.0f} s"))
        model = _wait(asked, end, away) if asked else None
        if made:
            return Result(adapter=made, model=model)  # the data is not needed any more
        for name, look in found.items():
            unread = DataUnreachable(f"{name}: no data within {seconds:.0f} s; use a faster server")
            log.info("%s: %s", name, _wait(look, end, unread))
        return Result(model=model)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _find(config: TuningConfig, places: Places) -> str:
    if config.output.volume and not places.results.is_dir():
        log.info(
            "tuning.output.volumeSource (%s): is not mounted here: it is looked into on the node", config.output.volume
        )
        return ""
    return outputs.find(config, places)


def _wait(future: concurrent.futures.Future[_T], end: float, too_late: TuningError) -> _T:
    try:
        return future.result(timeout=max(0.0, end - time.monotonic()))
    except TimeoutError:
        raise too_late from None
