"""What strangers write, made harmless: words that no terminal obeys, JSON that is a ValueError, files that end."""

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any

MOST = 16 << 20
"""Bytes of a file that is a config or a secret."""


class Told(Exception):
    """An error whose words go as far as a status and a terminal, and may be those of a server."""

    def __init__(self, words: str = "") -> None:
        super().__init__(inert(words))


def inert(text: str) -> str:
    """The text without what a terminal would obey: control characters, and those that turn the writing round."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def parsed(text: str | bytes) -> Any:
    """JSON; raises ValueError for what is none, also for brackets without end."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def content(path: Path) -> bytes:
    """Of the file; OSError also for a pipe, which may never end or give nothing when read again, a device, too much."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        about = os.fstat(handle)
        if not stat.S_ISREG(about.st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", str(path))
        if about.st_size > MOST:
            raise OSError(errno.EFBIG, f"it has {about.st_size:,} bytes, more than {MOST:,}", str(path))
        with os.fdopen(os.dup(handle), "rb") as file:
            return file.read(MOST)
    finally:
        os.close(handle)
