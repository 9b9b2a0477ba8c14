"""Files and folders on a volume that others may write to as well: whatever has a name of ours may be something else.

No link is followed, no pipe waited for, nothing read to no end. Knows no adapter and no checkpoint.
"""

import contextlib
import errno
import hashlib
import io
import json
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, TypeVar

import pydantic

MOST = 64 << 30
"""Bytes of a file that is looked into at all; sparse files pretend to have any number."""
MOST_JSON = 16 << 20
_NO_FILE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.ENODEV})

Shape = TypeVar("Shape", bound=pydantic.BaseModel)


def opened(path: Path, most: int = MOST) -> io.BufferedReader | None:
    """The regular file, to be read; None where the path is none, or has more bytes than that."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in _NO_FILE:
            return None
        raise
    about = os.fstat(handle)
    if not stat.S_ISREG(about.st_mode) or about.st_size > most:
        os.close(handle)
        return None
    return os.fdopen(handle, "rb")


def read(path: Path, shape: type[Shape]) -> Shape | None:
    """What the JSON file says; None where it is no such file, or says something of another shape."""
    file = opened(path, MOST_JSON)
    if file is None:
        return None
    with file, contextlib.suppress(ValueError, RecursionError):  # pydantic's errors are ValueErrors
        return shape.model_validate(json.load(file))  # its own parser refuses names of files that are no UTF-8
    return None


def sha256(path: Path) -> str | None:
    """Of the file; None where `opened` gives none."""
    file = opened(path)
    if file is None:
        return None
    with file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_folder(path: Path) -> bool:
    """Whether it is a folder itself, and no link to one."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return stat.S_ISDIR(path.lstat().st_mode)
    return False


def make_folder(path: Path) -> None:
    """Have a folder there, in place of whatever is none."""
    if not is_folder(path):
        path.unlink(missing_ok=True)
        path.mkdir()


@contextlib.contextmanager
def held(folder: Path) -> Iterator[int]:
    """The folder's descriptor, so that nobody puts a link in its place meanwhile; OSError where it is no folder."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        yield handle
    finally:
        os.close(handle)


def remove(path: Path | str, *, within: int | None = None) -> None:
    """Take it away, whatever it is, as far as it lets itself; `within` is a folder's descriptor for a name in it."""
    with contextlib.suppress(OSError, RecursionError):  # rmtree goes down by calling itself
        if stat.S_ISDIR(os.lstat(path, dir_fd=within).st_mode):
            shutil.rmtree(path, ignore_errors=True, dir_fd=within)
        else:
            os.unlink(path, dir_fd=within)


def write(path: Path, content: BinaryIO | bytes) -> None:
    """The content as a file that a power cut leaves alone."""
    with path.open("wb") as file:
        shutil.copyfileobj(io.BytesIO(content) if isinstance(content, bytes) else content, file, 1 << 20)
        file.flush()
        os.fsync(file.fileno())


def sync(path: Path) -> None:
    """Have the volume keep a folder's names, or a file's content, before anything that follows."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
