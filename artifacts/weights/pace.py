"""How much of a model or of data has come, how fast, and how long it still takes: in words, while it comes.

The images log the words; of a server that starts the operator finds them in its log (`heard`) and shows them in status.
"""

import contextlib
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

PAUSE = 10.0
"""Seconds between words."""
_JOIN = 1.0
"""Seconds that somebody who is slow to say how much there is may hold up the end."""
_MIB, _GIB = 2**20, 2**30
_SHORT = 120  # seconds, and minutes, that are not yet told in the next unit

_NUMBER = r"[0-9]{1,9}(?:\.[0-9])?"
_SPAN = rf"{_NUMBER} (?:s|min|h)"
WORDS = re.compile(
    rf"(fetch(?:ing|ed) (?:weights|data)): {_NUMBER}(?: of {_NUMBER})? [GM]iB(?: so far| in {_SPAN})?, {_NUMBER} MiB/s"
    rf"(?:, {_SPAN} left)?"
)
"""What `coming` and `come` say; its group is the part that stays the same meanwhile."""


def heard(text: str) -> str:
    """The last such words in a text that anybody may have written: nothing else of it; empty where there are none."""
    found = ""
    for match in WORDS.finditer(text):
        found = match[0]
    return found


def coming(what: str, there: int, whole: int, rate: float) -> str:
    """There are so many bytes of the whole (0: nobody knows of how many), and so many more each second."""
    unit, name = _unit(max(there, whole))
    if not whole:
        return f"fetching {what}: {there / unit:.1f} {name} so far, {rate / _MIB:.1f} MiB/s"
    left = f", {_span((whole - there) / rate)} left" if rate > 0 and there < whole else ""
    amount = f"{min(there, whole) / unit:.1f} of {whole / unit:.1f} {name}"
    return f"fetching {what}: {amount}, {rate / _MIB:.1f} MiB/s{left}"


def come(what: str, size: int, seconds: float) -> str:
    """So many bytes came in this time."""
    unit, name = _unit(size)
    seconds = max(seconds, 0.001)
    return f"fetched {what}: {size / unit:.1f} {name} in {_span(seconds)}, {size / seconds / _MIB:.1f} MiB/s"


@contextlib.contextmanager
def telling(
    place: Path,
    tell: Callable[[str], None],
    what: str = "weights",
    *,
    whole: Callable[[], int] = lambda: 0,
    every: float = PAUSE,
) -> Iterator[None]:
    """Tell how much has come into the folder so often, from a thread, and in the end.

    `whole` says how many bytes there will be, 0 where it cannot; it is asked only where the first pause goes by.
    """
    over = threading.Event()
    began, found = time.monotonic(), written(place)

    def watch() -> None:
        all_of_it, before, looked = None, found, began
        while not over.wait(every):
            all_of_it = whole() if all_of_it is None else all_of_it
            there, now = written(place), time.monotonic()
            if not over.is_set():
                tell(coming(what, there if all_of_it else there - found, all_of_it, (there - before) / (now - looked)))
            before, looked = there, now

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(_JOIN)
    size = written(place) - found
    tell(come(what, size, time.monotonic() - began) if size > 0 else f"found in {place}, nothing was fetched")


def _unit(size: int) -> tuple[int, str]:
    return (_GIB, "GiB") if size >= _GIB else (_MIB, "MiB")


def _span(seconds: float) -> str:
    if seconds < _SHORT:
        return f"{max(1.0, seconds):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < _SHORT * 60 else f"{min(seconds / 3600, 1e6):.0f} h"


def written(place: Path) -> int:
    """Bytes on the disk: what is fetched in parts may be reserved before it comes."""
    total = 0
    for file in place.rglob("*"):
        with contextlib.suppress(OSError):  # renamed meanwhile
            total += 0 if file.is_symlink() else file.stat().st_blocks * 512
    return total
