"""Reads data files into examples, row by row. Knows formats of files; what a row says is found in `shapes`.

Parquet and Arrow are read with pyarrow, JSON and CSV with the standard library, row by row: one bad row is then counted
and left out, where a table reader gives up the whole file. Nothing is copied into a cache, and files may differ in
columns. All of it happens in a process of its own, see `apart`, since files come from anybody.
"""

import contextlib
import csv
import functools
import io
import itertools
import lzma
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tuning.data import apart, formats
from tuning.data.fetch import File
from tuning.data.shapes import Example, Row, Tools, example, known, parsed, tools
from tuning.errors import DataInvalid
from tuning.training_config import DatasetConfig


class Dropped:
    """Rows that could not be used: how many, and why the first ones."""

    SHOWN = 3

    def __init__(self) -> None:
        self.count = 0
        self.first: list[str] = []

    def add(self, where: str, reason: str) -> None:
        """Count one."""
        self.count += 1
        if len(self.first) < self.SHOWN:
            self.first.append(f"{where}: {reason}")

    def __str__(self) -> str:
        return "; ".join(self.first) + (f"; and {self.count - self.SHOWN} more" if self.count > self.SHOWN else "")


class Found(NamedTuple):
    """An example and where it comes from, for messages."""

    where: str
    example: Example
    tools: Tools = ()


def read(files: Iterable[File], columns: DatasetConfig, dropped: Dropped, **bounds: int) -> list[Found]:
    """All examples of all files, in order; what is none is added to `dropped`. DataInvalid when there is no example."""
    found: list[Found] = []
    for file, read_rows in apart.read(list(files), columns, **bounds):
        for number, row in enumerate(read_rows, start=1):
            where = f"{file.name} row {number}"
            try:
                found.append(Found(where, example(row, columns), tools(row)))
            except ValueError as error:
                dropped.add(where, str(error))
    if not found:
        raise DataInvalid(
            f"tuning.input: no row of {dropped.count} can be used: {str(dropped) or 'the files have none'}"
        )
    return found


def each(file: File, columns: DatasetConfig) -> Iterator[Row | ValueError]:
    """The file's rows; a row that cannot be read is its error."""
    try:
        with file.path.open("rb") as opened:
            kind = formats.sniff(opened.read(formats.HEAD_BYTES))
    except DataInvalid as error:
        raise DataInvalid(f"{file.field} ({file.name}): {error}") from error
    try:
        readers: dict[formats.Format, Callable[[Path], Iterator[Row | ValueError]]] = {
            "parquet": functools.partial(_parquet, columns=columns),
            "arrow": _arrow,
            "json": functools.partial(_json, columns=columns),
            "csv": _csv,
        }
        yield from readers[kind](file.path)
    except (ValueError, OSError, csv.Error, RecursionError, EOFError, zlib.error, lzma.LZMAError) as error:
        # pyarrow's errors are ValueErrors and OSErrors; a disk's error has a number
        if isinstance(error, OSError) and error.errno:
            raise
        raise DataInvalid(f"{file.field} ({file.name}): this {kind} file cannot be read: {error}") from error


def _parquet(path: Path, columns: DatasetConfig) -> Iterator[Row]:
    import pyarrow.parquet  # noqa: PLC0415 -- half a second

    with pyarrow.parquet.ParquetFile(path) as table:
        names = [name for name in table.schema_arrow.names if name in known(columns)]  # pictures stay where they are
        for batch in table.iter_batches(batch_size=256, columns=names or None, use_threads=False):
            yield from batch.to_pylist()


def _arrow(path: Path) -> Iterator[Row]:
    """Of a file with an index at its end, or a stream without."""
    import pyarrow.ipc  # noqa: PLC0415

    with pyarrow.OSFile(os.fspath(path)) as file:
        is_stream = file.read(6) != b"ARROW1"
        file.seek(0)
        table = pyarrow.ipc.open_stream(file) if is_stream else pyarrow.ipc.open_file(file)
        batches = table if is_stream else map(table.get_batch, range(table.num_record_batches))
        for batch in batches:
            batch.validate(full=True)  # offsets are believed otherwise
            yield from itertools.chain.from_iterable(
                batch.slice(start, 256).to_pylist() for start in range(0, batch.num_rows, 256)
            )


def _json(path: Path, columns: DatasetConfig) -> Iterator[Row | ValueError]:
    """A row per line, or one document: an array of rows, an object that holds one, or a row."""
    head = list(itertools.islice(_lines(path), _HEAD_LINES))
    if len(head) > 1 and isinstance(head[0], dict):  # no document goes on after its end
        yield from _lines(path)
        return
    document = head[0] if len(head) == 1 else parsed(_whole(path))
    if not isinstance(document, ValueError):
        yield from _rows_of(document, columns)
    elif 2 * sum(isinstance(row, dict) for row in head) >= len(head):  # it is the first line that is broken
        yield from _lines(path)
    else:
        raise document


_HEAD_LINES = 20


def _rows_of(document: Any, columns: DatasetConfig) -> list[Any]:
    """The document's rows: itself if it is a list or of a known shape, else its longest list."""
    if isinstance(document, list):
        return document
    lists = [value for value in document.values() if isinstance(value, list)]
    with contextlib.suppress(ValueError):
        example(document, columns)
        return [document]
    return max(lists, key=len, default=[document])


def _lines(path: Path) -> Iterator[Any]:
    """The value of each line, or its error as a value."""
    with path.open("rb") as stored, formats.unpacking(stored) as file:
        yield from (parsed(line.removeprefix(b"\xef\xbb\xbf")) for line in file if line.strip())


def _whole(path: Path) -> bytes:
    with path.open("rb") as stored, formats.unpacking(stored) as file:
        return file.read()


def _csv(path: Path) -> Iterator[Row]:
    csv.field_size_limit(1 << 28)
    with path.open("rb") as stored, formats.unpacking(stored) as file:
        text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
        header = text.readline()
        lines = itertools.chain([header], text)
        yield from csv.DictReader(lines, delimiter=max(",;\t", key=header.count), strict=True)
