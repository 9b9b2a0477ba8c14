"""What a chat template may take and make: it is a program, and anybody's.

jinja2's sandbox, which transformers renders in, bounds how long one `range` is and nothing else. Ranges within ranges
take all the time there is, and words times a thousand million all memory; so both are bounded for this process while
it renders, whoever does it. For the main thread: only that one can be interrupted.
"""

import contextlib
import os
import resource
import signal
from collections.abc import Iterator
from typing import Any

from tuning.errors import ConfigInvalid

SECONDS = 5.0
"""Of the processor, for one conversation: those of real templates take thousandths."""
MEMORY, EACH = 128 << 20, 64
"""Bytes that rendering may take beside what the process has, and more for each character of the conversation."""
CHARACTERS, TIMES = 1 << 20, 16
"""Of the text, and more for each character of the conversation: a template may say it again, escaped or in parts."""

_DATA, _PAGE = 5, resource.getpagesize()
"""Where a process's data stands in statm, and in what."""


class _LateError(BaseException):
    """No `except Exception` on the way keeps it."""


@contextlib.contextmanager
def bounded(said: int, *, seconds: float = SECONDS) -> Iterator[None]:
    """Raise ConfigInvalid where what is done within takes too much for a conversation of so many characters."""
    memory = MEMORY + EACH * said
    try:
        with _clock(seconds), _roof(memory):
            yield
    except _LateError:
        raise _refused(said, f"takes more than {seconds:g} s of the processor to render") from None
    except MemoryError:
        raise _refused(said, f"takes more than {memory >> 20:,} MiB of memory to render") from None


def see(text: str, said: int) -> str:
    """The text, unless a conversation of so many characters has become too long in it."""
    if len(text) > (most := CHARACTERS + TIMES * said):
        raise _refused(said, f"is rendered to {len(text):,} characters, more than {most:,}")
    return text


def _refused(said: int, what: str) -> ConfigInvalid:
    return ConfigInvalid(
        "ModelConfig.chat_template (where none is given, the model's own):"
        f" a conversation of {said:,} characters {what}; give a template that writes the messages and little else"
    )


@contextlib.contextmanager
def _clock(seconds: float) -> Iterator[None]:
    """Counts this process's own time, so that a busy machine ends nothing; rings again where nobody heard it."""

    def ring(*_: Any) -> None:
        raise _LateError

    before = signal.signal(signal.SIGVTALRM, ring)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


@contextlib.contextmanager
def _roof(room: int) -> Iterator[None]:
    """So many bytes more than now; no bound where the system does not say what it has, as on a Mac."""
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    used = _used()
    if used is None:
        yield
        return
    most = used + room if soft == resource.RLIM_INFINITY else min(soft, used + room)
    resource.setrlimit(resource.RLIMIT_DATA, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _used() -> int | None:
    """Bytes of data that the process has, as RLIMIT_DATA counts them."""
    try:
        handle = os.open("/proc/self/statm", os.O_RDONLY)
    except OSError:
        return None
    pages = os.read(handle, 256).split()[_DATA]
    os.close(handle)
    return int(pages) * _PAGE
