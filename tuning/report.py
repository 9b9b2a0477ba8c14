"""What a run tells the world while it runs and when it ends: progress lines, log lines, the termination message."""

import json
import logging
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

import pydantic

from tuning.config import Progress

log = logging.getLogger("tuning")
"""For people, on stderr; stdout carries progress alone."""

TERMINATION_LOG = "TERMINATION_LOG"
"""Environment variable with the path of the termination message, for where there is no kubelet."""


class Report:
    """Progress lines: one a second is enough for any reader, and the percentage never falls."""

    def __init__(self, out: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._out = out
        self._clock = clock
        self._last: Progress | None = None
        self._said_at = float("-inf")

    def say(self, progress: Progress, *, last: bool = False) -> None:
        """Print the line unless one was printed within the last second; a new phase and a `last` line always are."""
        percent = max(progress.percent, self._last.percent if self._last else 0)
        new_phase = self._last is None or self._last.phase != progress.phase
        now = self._clock()
        if not (last or new_phase or now - self._said_at >= 1):
            return
        self._last = progress.model_copy(update={"percent": percent})
        self._said_at = now
        print(self._last.line(), file=self._out, flush=True)


def log_to(stream: TextIO) -> None:
    """Send log lines to the stream, with times, unless somebody listens already."""
    logging.basicConfig(stream=stream, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    for chatty in ("httpx", "httpx2", "urllib3", "filelock", "accelerate", "bitsandbytes"):
        logging.getLogger(chatty).setLevel(logging.ERROR)


def leave(message: pydantic.BaseModel) -> None:
    """Write the termination message; without a kubelet to read it, print it."""
    text = json.dumps(message.model_dump(mode="json", exclude_defaults=True), ensure_ascii=True)
    path = Path(os.environ.get(TERMINATION_LOG, "/dev/termination-log"))
    try:
        path.write_text(text)
    except OSError:
        print(text, file=sys.stderr, flush=True)  # noqa: T201
