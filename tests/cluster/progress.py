"""One line per part of the work: what it is, what it waits for, how long it took."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def part(name: str, waits_for: str = "") -> Iterator[None]:
    """Say on a terminal what is under way, and in any case what was done and how long it took."""
    live = sys.stdout.isatty()
    started = time.monotonic()
    waiting = f"  {name:<24} ... {waits_for}"
    if live:
        print(waiting, end="\r", flush=True)
    elif waits_for:
        print(waiting, flush=True)
    yield
    line = f"  {name:<24} {time.monotonic() - started:6.1f} s"
    print(line.ljust(len(waiting)) if live else line, flush=True)


def until(reached: Callable[[], bool], *, what: str, seconds: float, hint: str, pause: float = 0.1) -> None:
    """Wait for something; a TimeoutError says what was waited for and where to look."""
    deadline = time.monotonic() + seconds
    while not reached():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} not reached after {seconds:.0f} s; {hint}")
        time.sleep(pause)
