"""What a run tells the world while it runs and when it ends: progress lines, log lines, the termination message.

Whoever else wants to know of each step listens: the curve, the bar on a terminal, the figures on the pod's port.
"""

import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TextIO

import pydantic

from tuning.config import Progress
from tuning.curve import Curve

log = logging.getLogger("tuning")
"""For people, on stderr; stdout carries progress alone."""

TERMINATION_LOG = "TERMINATION_LOG"
"""Environment variable with the path of the termination message, for where there is no kubelet."""


PAUSE_SECONDS = 10.0
"""Between progress lines: whoever reads them writes each to the cluster."""

Listener = Callable[[Progress], None]


class Report:
    """Progress: to those who listen as it comes, to the log at most every ten seconds; the percentage never falls."""

    def __init__(
        self, out: TextIO | None, clock: Callable[[], float] = time.monotonic, *, listeners: Sequence[Listener] = ()
    ) -> None:
        self.curve = Curve()
        self._out = out
        self._listeners = listeners
        self._clock = clock
        self._last: Progress | None = None
        self._said_at = float("-inf")
        self._turn = threading.RLock()  # what is fetched is told of by a thread of its own

    def say(self, progress: Progress, *, last: bool = False) -> None:
        """Print the line unless one was printed shortly before; a new phase and a `last` line always are."""
        with self._turn:
            before, now = self._last, self._clock()
            percent = max(progress.percent, before.percent if before else 0)
            self._last = progress = progress.model_copy(update={"percent": percent})
            self.curve.add(progress)
            for listener in self._listeners:
                listener(progress)
            new_phase = before is None or before.phase != progress.phase
            if self._out and (last or new_phase or now - self._said_at >= PAUSE_SECONDS):
                self._said_at = now
                print(progress.line(), file=self._out, flush=True)


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
