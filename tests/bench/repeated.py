"""What a run that was killed has to do again: its steps since the checkpoint that the next attempt goes on from.

The step that it was at is asked of its own port until the kill. Held against the interval: what was asked for, or
twenty times what the last checkpoint took, where that is longer; a copy in the registry has its own, and waits for a
checkpoint first.
"""

import contextlib
import datetime
import http.client
import itertools
import re
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from typing import NamedTuple

_CUT = (OSError, http.client.HTTPException)
"""What an answer ends with whose process is killed meanwhile."""
_STEP = re.compile(r"^kaito_hera_tuning_step (\d+)$", re.MULTILINE)
_TIME = r"^(\S+ \S+) INFO "
_BEGAN = re.compile(_TIME + "computing in ", re.MULTILINE)
_SAVED = re.compile(r"checkpoint after step \d+, in (\S+) s$", re.MULTILINE)
_COPIED = re.compile(r"has the checkpoint after step \d+, in (\S+) s$", re.MULTILINE)
_SHARE = 20
"""Checkpoints, and copies of them, take a twentieth of the time at most."""


class Repeated(NamedTuple):
    """After one kill."""

    steps: int
    seconds: float
    interval: float
    """Seconds that the checkpoints of this run are apart."""
    most: float
    """The same with what may come on top: the step, save and copy that were under way at either end."""
    evicted: bool

    def __str__(self) -> str:
        """For people."""
        return (
            f"{'evicted' if self.evicted else 'killed'}: {self.steps} steps in {self.seconds:.2f} s come again;"
            f" the interval is {self.interval:.2f} s, and with its ends {self.most:.2f} s"
        )


class Watch:
    """When which step was done, as the run's port tells it."""

    def __init__(self, port: int) -> None:
        self.seen: list[tuple[float, int]] = []
        self._address = f"http://127.0.0.1:{port}/metrics?format=prometheus"
        self.ends = threading.Event()

    def look(self) -> None:
        while not self.ends.wait(0.005):
            with contextlib.suppress(*_CUT), urllib.request.urlopen(self._address, timeout=1) as answer:
                if found := _STEP.search(answer.read().decode()):
                    self._add(int(found[1]))

    def _add(self, step: int) -> None:
        if not self.seen or self.seen[-1][1] < step:
            self.seen.append((time.time(), step))


@contextlib.contextmanager
def watched(port: int) -> Iterator[Watch]:
    """Asked meanwhile."""
    watch = Watch(port)
    thread = threading.Thread(target=watch.look, daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        watch.ends.set()
        thread.join()


class Log:
    """What a run's log says of its checkpoints."""

    def __init__(self, text: str, *, copied: bool, asked: float, pushed: float) -> None:
        found = _BEGAN.search(text)
        assert found, text
        self.began = datetime.datetime.strptime(found[1], "%Y-%m-%d %H:%M:%S,%f").timestamp()  # noqa: DTZ007 -- ours
        saves = [float(each) for each in _SAVED.findall(text)]
        pushes = [float(each) for each in _COPIED.findall(text)]
        self.push = (pushes or [pushed])[-1] if copied else 0.0
        """Seconds that the last copy took."""
        self.interval = max(asked, _SHARE * (saves or [0.0])[-1])
        if pushes:
            self.interval += max(asked, _SHARE * self.push)


def since(log: Log, watch: Watch, *, there: int, before: int, killed: float, evicted: bool) -> Repeated:
    """What comes again after a kill that left the checkpoint after step `there`; `before` it began with another."""
    seen = [(log.began, before), *(each for each in watch.seen if each[0] <= killed)]
    at = next((when for when, step in seen if step >= there), killed)
    times = [when for when, _ in seen]
    longest = max(later - earlier for earlier, later in itertools.pairwise([*times, killed]))
    done = max(0, seen[-1][1] - there)
    return Repeated(done, max(0.0, killed - at), log.interval, log.interval + 2 * longest + log.push, evicted)


def figures(found: Sequence[Repeated]) -> dict[str, float | int]:
    """The most of it, of kills; of evictions the steps, since the last one may be waited for."""
    kills = [each for each in found if not each.evicted]
    return {
        "most_repeated_steps": max(each.steps for each in kills),
        "most_repeated_seconds": round(max(each.seconds for each in kills), 2),
        "most_repeated_of_interval_and_ends": round(max(each.seconds / each.most for each in kills), 2),
        "beyond_the_interval": sum(each.seconds > each.most for each in kills),
        "most_repeated_steps_after_sigterm": max((each.steps for each in found if each.evicted), default=0),
    }
