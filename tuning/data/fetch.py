"""Downloads the data; before a GPU is bought, `heads` looks at it. Knows no rows."""

import functools
import hashlib
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple, TypeVar

import requests

from tuning.data import formats, remote
from tuning.data.remote import Remote, Source
from tuning.errors import ConfigInvalid, DataInvalid, DataUnreachable, NodeTrouble
from tuning.report import log

PATIENCE_SECONDS = 120.0
"""Without SLOWEST bytes in this time, a download is given up."""

SLOWEST = 100_000
"""Fewer bytes in PATIENCE_SECONDS are no download: a file of 20 MB would take seven hours."""

MAX_BYTES = 20 * 2**30
"""Of all files together; rows are held in memory later."""


T = TypeVar("T")


class File(NamedTuple):
    """A data file on disk."""

    field: str
    """What messages call it: `tuning.input.urls[0]`."""
    name: str
    path: Path
    size: int
    sha256: str


def sources(urls: tuple[str, ...]) -> list[Source]:
    """The URLs as messages know them."""
    return [Source(f"tuning.input.urls[{index}]", url) for index, url in enumerate(urls)]


def picked(found: list[Source], only: str | None) -> list[Source]:
    """Those that DatasetConfig.dataset_path means: all, or the files of that name."""
    if only is None:
        return found
    kept = [source for source in found if source.name == PurePosixPath(only).name]
    if not kept:
        names = ", ".join(source.name for source in found[:20])
        raise ConfigInvalid(
            f"DatasetConfig.dataset_path: {only!r} is none of the input's files ({names}); name one of them"
        )
    return kept


class Pace(NamedTuple):
    """How long a host is waited for."""

    patience: float = PATIENCE_SECONDS
    slowest: int = SLOWEST
    pause: float = 0.5


PACE = Pace()


def patiently(ask: Callable[[], T], pace: Pace) -> T:
    """The answer of a host that may be away for a while."""
    wait, since = pace.pause, time.monotonic()
    while True:
        try:
            return ask()
        except DataUnreachable as error:
            if time.monotonic() + wait - since > pace.patience:
                raise
            log.warning("%s; trying again in %.1f s", error, wait)
        time.sleep(wait)
        wait = min(2 * wait, 15)


def download(
    wanted: list[Source],
    folder: Path,
    opened: Remote,
    *,
    limit: int = MAX_BYTES,
    pace: Pace = PACE,
    on_share: Callable[[float], None] = lambda _share: None,
) -> list[File]:
    """The files on disk, one after the other; `on_share` hears how much of the whole has come, from 0 to 1."""
    folder.mkdir(parents=True, exist_ok=True)
    files: list[File] = []
    for index, source in enumerate(wanted):
        partial = _Partial(folder / f"{index:03}-{source.name}", limit - sum(file.size for file in files))
        for share in _patiently(source, partial, functools.partial(_receive, source, partial, opened, pace), pace):
            on_share((index + share) / len(wanted))
        files.append(_finished(source, partial))
        log.info("%s: %d bytes, sha256 %s", source.label, partial.size, partial.digest.hexdigest())
    return files


class _Partial:
    """A file that grows, with its checksum."""

    def __init__(self, path: Path, limit: int) -> None:
        self.path = path
        self.limit = limit
        self.version = ""
        """The server's name for the content; empty when it gave none that a continuation could be tied to."""
        self.restart()

    def restart(self) -> None:
        self.size = 0
        self.digest = hashlib.sha256()
        self.path.write_bytes(b"")

    def add(self, chunks: Iterable[bytes]) -> Iterator[int]:
        """Append the chunks; yields the size after each."""
        with self.path.open("ab") as file:
            for chunk in chunks:
                if self.size + len(chunk) > self.limit:
                    raise DataInvalid(
                        f"the data is larger than the {self.limit:,} bytes left; give fewer or smaller files"
                    )
                file.write(chunk)
                self.digest.update(chunk)
                self.size += len(chunk)
                yield self.size


def _patiently(
    source: Source, partial: _Partial, receive: Callable[[], Iterator[float]], pace: Pace
) -> Iterator[float]:
    """Receive until the file is whole, going on where it was cut; yields shares of it."""
    wait, before, since = pace.pause, 0, time.monotonic()
    while True:
        try:
            with remote.explained(source):
                yield from receive()
        except DataUnreachable as error:
            if partial.size >= before + pace.slowest:
                wait, before, since = pace.pause, partial.size, time.monotonic()
            if time.monotonic() + wait - since > pace.patience:
                raise
            log.warning("%s; has %d bytes, trying again in %.1f s", error, partial.size, wait)
            time.sleep(wait)
            wait = min(2 * wait, 15)
        else:
            return


def _receive(source: Source, partial: _Partial, opened: Remote, pace: Pace) -> Iterator[float]:
    """One request's worth of the file."""
    go_on = {"Range": f"bytes={partial.size}-", "If-Range": partial.version} if partial.size and partial.version else {}
    with opened.open(source.url, go_on) as response:
        sent = response.headers.get("Content-Range", "")
        if response.status_code == requests.codes.requested_range_not_satisfiable and sent == f"bytes */{partial.size}":
            return  # it was whole already, and only the connection's end was bad
        length = remote.length(response)
        if not (response.status_code == requests.codes.partial and sent.startswith(f"bytes {partial.size}-")):
            partial.restart()
        partial.version = remote.version(response)
        total = partial.size + length
        _refuse_too_large(partial, total)
        since, before = time.monotonic(), partial.size
        for size in partial.add(remote.pieces(response)):
            if (now := time.monotonic()) - since > pace.patience:
                if size - before < pace.slowest:
                    raise DataUnreachable(
                        f"the server sends {size - before:,} bytes in {now - since:.0f} s; use a faster one"
                    )
                since, before = now, size
            yield min(1.0, size / max(total, size, 1))


def _refuse_too_large(partial: _Partial, total: int) -> None:
    if total > partial.limit:
        raise DataInvalid(f"the file has {total:,} bytes, more than the {partial.limit:,} left; give smaller files")
    free = shutil.disk_usage(partial.path.parent).free
    if total - partial.size > free:
        raise NodeTrouble(
            f"the file has {total:,} bytes, the disk at {partial.path.parent} {free:,} free; give it more"
        )


def _finished(source: Source, partial: _Partial) -> File:
    with partial.path.open("rb") as file, remote.explained(source):
        formats.sniff(file.read(formats.HEAD_BYTES))
        formats.refuse_cut(partial.path)
    return File(source.field, source.name, partial.path, partial.size, partial.digest.hexdigest())
