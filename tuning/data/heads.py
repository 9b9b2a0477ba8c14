"""The first rows of each input, read before a GPU is bought: a little of a file, wherever it is.

Bounded in bytes and time. What cannot be read from a head (a JSON document that ends far away, a server without ranges)
is left to the node.
"""

import io
import itertools
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import requests

from tuning.data import apart, folder, formats, remote, rows, shapes
from tuning.data.fetch import File
from tuning.data.remote import Remote, Source
from tuning.errors import DataInvalid
from tuning.training_config import DatasetConfig

ROWS = 20
"""Of one file."""
FILES = 3
"""Of one folder."""
BYTES = 256 << 10
"""Of a text; twenty rows rarely have more."""
PARQUET_BYTES = 32 << 20
"""Its rows lie column by column, a page of each at least."""
SECONDS = 10.0
"""A server that is slower is believed to have good rows."""
_BLOCK = 512 << 10
_BINARY = frozenset({"parquet", "arrow"})
"""What is read piece by piece, from wherever a piece is."""
_ARROW_FILE = b"ARROW1\0\0"
"""Before what is a stream, with an index behind it."""


class Seen(NamedTuple):
    """What a look at an input has found."""

    words: str
    found: tuple[rows.Found, ...] = ()
    """Of its first rows those that can be used."""
    dropped: tuple[tuple[str, str], ...] = ()
    """The others: where they are, and what is wrong with them."""
    commits: tuple[tuple[str, str], ...] = ()
    """Of data sets of the hub: the address and what pins it."""


class _NotHereError(Exception):
    """The rows cannot be read here; the node will."""


def of_source(source: Source, opened: Remote, columns: DatasetConfig) -> Seen:
    """Of the file behind an address; raises what the user must mend."""
    with remote.explained(source):
        head, whole = _head(source, opened)
        kind = formats.sniff(head[: formats.HEAD_BYTES])
        try:
            if kind in _BINARY:
                return _seen(kind, source.name, _binary(kind, _Ranged(source, opened), columns), columns)
            return _seen(kind, source.name, list(_text(kind, head, columns, whole=whole)), columns)
        except _NotHereError as why:
            return Seen(f"{kind}; its rows are read on the node, since {why}")


def of_folder(asked: folder.Folder, only: str | None, columns: DatasetConfig) -> Seen:
    """Of a folder's first files; raises what the user must mend."""
    files = folder.data(asked, only)
    parts = [_of_file(asked, each, columns) for each in files[:FILES]]
    found = itertools.chain.from_iterable(part.found for part in parts)
    dropped = itertools.chain.from_iterable(part.dropped for part in parts)
    return Seen(folder.words(files), tuple(found), tuple(dropped))


def _of_file(asked: folder.Folder, file: folder.Candidate, columns: DatasetConfig) -> Seen:
    try:
        with file.path.open("rb") as opened:
            if file.kind in _BINARY:
                formats.refuse_cut(file.path)
                return _seen(file.kind, file.name, _binary(file.kind, opened, columns), columns)
            head = opened.read(BYTES)
        return _seen(file.kind, file.name, list(_text(file.kind, head, columns, whole=len(head) == file.size)), columns)
    except _NotHereError:
        return Seen("")
    except DataInvalid as error:
        raise DataInvalid(f"{asked.field}: {file.name}: {error}") from error
    except OSError as error:
        raise folder.unreadable(asked, error) from error


def _seen(kind: str, name: str, read: list[Any], columns: DatasetConfig) -> Seen:
    found, dropped = [], []
    for number, row in enumerate(read, start=1):
        where = f"{name} row {number}"
        try:
            found.append(rows.Found(where, shapes.example(row, columns), shapes.tools(row)))
        except ValueError as error:
            dropped.append((where, str(error)))
    return Seen(kind, tuple(found), tuple(dropped))


def _head(source: Source, opened: Remote) -> tuple[bytes, bool]:
    """The first bytes, as many as come in time, and whether they are all."""
    end, head = time.monotonic() + SECONDS, b""
    with opened.open(source.url, {"Range": f"bytes=0-{BYTES - 1}"}) as response:
        if response.status_code == requests.codes.requested_range_not_satisfiable:
            return b"", True
        remote.length(response)
        for piece in remote.pieces(response):
            head += piece
            if len(head) >= BYTES or (time.monotonic() > end and len(head) >= formats.HEAD_BYTES):
                return head[:BYTES], False
        of = response.headers.get("Content-Range", "").rpartition("/")[2]
    return head, of in {"", str(len(head))}


def _text(kind: formats.Format, head: bytes, columns: DatasetConfig, *, whole: bool) -> Iterator[Any]:
    """The first rows of JSON or CSV that begins so."""
    if formats.is_packed(head):
        head, whole = formats.unpacked(head, BYTES), False
    if not whole and head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"[":
        return itertools.islice(_elements(head.decode("utf-8-sig", errors="ignore")), ROWS)
    lines = head if whole else head[: head.rfind(b"\n") + 1]
    if not whole and lines.count(b"\n") <= (1 if kind == "csv" else 0):
        raise _NotHereError(f"not one of them ends within {len(head):,} bytes")
    with tempfile.NamedTemporaryFile(suffix=f".{kind}") as file:
        file.write(lines)
        file.flush()
        as_file = File("", "", Path(file.name), len(lines), "")
        try:
            return iter(list(itertools.islice(rows.each(as_file, columns), ROWS)))
        except DataInvalid as error:
            if not whole:  # one document of many lines, or a text that was cut within quotes
                raise _NotHereError("the first bytes do not tell") from error
            raise DataInvalid(str(error).partition("): ")[2]) from error


def _elements(text: str) -> Iterator[Any]:
    """Those of an array that are there as a whole."""
    decoder, place = json.JSONDecoder(), text.index("[") + 1
    while True:
        place += len(text[place:]) - len(text[place:].lstrip(" \t\r\n,"))
        try:
            value, place = decoder.raw_decode(text, place)
        except (ValueError, RecursionError):
            return
        yield value


def _binary(kind: formats.Format, file: Any, columns: DatasetConfig) -> list[Any]:
    try:
        return _parquet(file) if kind == "parquet" else _arrow(file, columns)
    except requests.RequestException:  # an OSError too, and the server's
        raise
    except (ValueError, OSError, NotImplementedError) as error:
        raise DataInvalid(f"this {kind} file cannot be read: {error}") from error


def _parquet(file: Any) -> list[Any]:
    import pyarrow.parquet  # noqa: PLC0415 -- 0.3 s

    with pyarrow.parquet.ParquetFile(file, buffer_size=1 << 16, pre_buffer=False) as table:
        first: list[Any] = next((batch.to_pylist() for batch in table.iter_batches(batch_size=ROWS)), [])
        return first


def _arrow(file: Any, columns: DatasetConfig) -> list[Any]:
    """Of the first record batch, decoded in a process of its own as on the node: it may unpack without end."""
    import pyarrow.ipc  # noqa: PLC0415

    if file.read(len(_ARROW_FILE)) != _ARROW_FILE:
        file.seek(0)
    with tempfile.NamedTemporaryFile(suffix=".arrow") as first:
        for message in pyarrow.ipc.MessageReader.open_stream(_Bounded(file)):
            first.write(message.serialize())
            if message.type == "record batch":
                break
        first.flush()
        as_file = File("", "", Path(first.name), first.tell(), "")
        try:
            return [row for _, read in apart.read([as_file], columns) for row in itertools.islice(read, ROWS)]
        except DataInvalid as error:
            raise DataInvalid(str(error).partition("): ")[2]) from error


class _Bounded(io.RawIOBase):
    """A file of which no more is read than there may be room for: a batch of Arrow's can be all of it."""

    def __init__(self, file: Any) -> None:
        self._file, self._left = file, PARQUET_BYTES

    def readable(self) -> bool:
        """It is."""
        return True

    def read(self, size: int = -1) -> bytes:
        """The next bytes."""
        self._left -= size
        if self._left < 0:
            raise _NotHereError(f"the first of them lie in more than {PARQUET_BYTES >> 20} MiB")
        found: bytes = self._file.read(size)
        return found


class _Ranged(io.RawIOBase):
    """A file behind an address, of which only what is read is fetched, in blocks."""

    def __init__(self, source: Source, opened: Remote) -> None:
        self._source, self._opened = source, opened
        self._blocks: dict[int, bytes] = {}
        self._place, self._end = 0, time.monotonic() + SECONDS
        self._size = 0
        self._block(0)

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """Where the next byte is read."""
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go there."""
        self._place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        return self._place

    def read(self, size: int = -1) -> bytes:
        """The next bytes; fewer only at the end."""
        end = self._size if size < 0 else min(self._size, self._place + size)
        parts = []
        while self._place < end:
            number, within = divmod(self._place, _BLOCK)
            part = self._block(number)[within : within + end - self._place]
            if not part:
                break
            parts.append(part)
            self._place += len(part)
        return b"".join(parts)

    def _block(self, number: int) -> bytes:
        if number not in self._blocks:
            if len(self._blocks) * _BLOCK >= PARQUET_BYTES:
                raise _NotHereError(f"they lie in more than {PARQUET_BYTES >> 20} MiB")
            if time.monotonic() > self._end:
                raise _NotHereError("the server takes its time")
            self._blocks[number] = self._fetched(number)
        return self._blocks[number]

    def _fetched(self, number: int) -> bytes:
        first = number * _BLOCK
        with self._opened.open(self._source.url, {"Range": f"bytes={first}-{first + _BLOCK - 1}"}) as response:
            remote.length(response)
            size = response.headers.get("Content-Range", "").rpartition("/")[2]
            if response.status_code != requests.codes.partial or not size.isdigit():
                raise _NotHereError("the server gives no parts of files")
            self._size = int(size)
            return b"".join(remote.pieces(response))[:_BLOCK]
