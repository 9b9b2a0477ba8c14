"""Reads data files into examples: conversations or plain texts. Knows shapes of rows, no tokens.

Parquet is read with pyarrow, JSON and CSV with the standard library, row by row: one bad row is then counted and left
out, where a table reader gives up the whole file. Nothing is copied into a cache, and files may differ in columns.
"""

import contextlib
import csv
import functools
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tuning.data import formats
from tuning.data.fetch import File
from tuning.errors import DataInvalid
from tuning.training_config import DatasetConfig

Row = Mapping[str, Any]
Message = dict[str, str]
Example = list[Message] | str
"""A conversation of `role` and `content`, or a text."""

ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "tool": "tool",
}

PROMPTS = ("prompt", "instruction", "question")
CONTEXTS = ("context", "input")
RESPONSES = ("completion", "response", "output", "answer")


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


def read(files: Iterable[File], columns: DatasetConfig, dropped: Dropped) -> list[Found]:
    """All examples of all files, in order; what is none is added to `dropped`. DataInvalid when there is no example."""
    found: list[Found] = []
    for file in files:
        for number, row in enumerate(_rows(file, columns), start=1):
            where = f"{file.name} row {number}"
            try:
                found.append(Found(where, example(row, columns)))
            except ValueError as error:
                dropped.add(where, str(error))
    if not found:
        raise DataInvalid(
            f"tuning.input: no row of {dropped.count} can be used: {str(dropped) or 'the files have none'}"
        )
    return found


def _rows(file: File, columns: DatasetConfig) -> Iterator[Row | ValueError]:
    """The file's rows; a row that cannot be read is its error."""
    with file.path.open("rb") as opened:
        kind = formats.sniff(opened.read(formats.HEAD_BYTES))
    try:
        readers: dict[formats.Format, Callable[[Path], Iterator[Row | ValueError]]]
        readers = {"parquet": _parquet, "json": functools.partial(_json, columns=columns), "csv": _csv}
        yield from readers[kind](file.path)
    except (ValueError, OSError, csv.Error, RecursionError) as error:
        # pyarrow's errors are ValueErrors and OSErrors; a disk's error has a number
        if isinstance(error, OSError) and error.errno:
            raise
        raise DataInvalid(f"{file.field} ({file.name}): this {kind} file cannot be read: {error}") from error


def _parquet(path: Path) -> Iterator[Row]:
    import pyarrow.parquet  # noqa: PLC0415 -- not in the operator's image

    with pyarrow.parquet.ParquetFile(path) as table:
        for batch in table.iter_batches(batch_size=1024):
            yield from batch.to_pylist()


def _json(path: Path, columns: DatasetConfig) -> Iterator[Row | ValueError]:
    """A row per line, or one document: an array of rows, an object that holds one, or a row."""
    head = list(itertools.islice(_lines(path), _HEAD_LINES))
    if len(head) > 1 and isinstance(head[0], dict):  # no document goes on after its end
        yield from _lines(path)
        return
    document = head[0] if len(head) == 1 else _parsed(path.read_bytes())
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
    with path.open("rb") as file:
        yield from (_parsed(line.removeprefix(b"\xef\xbb\xbf")) for line in file if line.strip())


def _parsed(line: bytes) -> Any:
    """The value, or its error as a value."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        return ValueError(f"not JSON: {error}")


def _csv(path: Path) -> Iterator[Row]:
    csv.field_size_limit(1 << 28)
    with path.open(encoding="utf-8-sig", newline="") as file:
        header = file.readline()
        file.seek(0)
        yield from csv.DictReader(file, delimiter=max(",;\t", key=header.count), strict=True)


def example(row: Row | ValueError, columns: DatasetConfig) -> Example:
    """What the row says, by the first shape that fits; ValueError says why it cannot be used."""
    if isinstance(row, ValueError):
        raise row
    if not isinstance(row, Mapping):
        raise ValueError(f"a row is {type(row).__name__}, not an object with columns")  # noqa: TRY004
    for shape in _SHAPES:
        if (found := shape(row, columns)) is not None:
            return found
    raise ValueError(
        f"columns {', '.join(map(str, row))[:200]} are no known shape; have messages, conversations, prompt and "
        "completion, instruction and response, or text, or name the columns in DatasetConfig"
    )


def _chat(row: Row, columns: DatasetConfig) -> Example | None:
    if columns.messages_column:
        return _messages(_value(row, columns.messages_column))
    for column in ("messages", "conversations"):
        if not _response(row, columns) and row.get(column):
            return _messages(row[column])
    return None


def _response(row: Row, columns: DatasetConfig) -> str | None:
    """The response column that is asked for; `text` is KAITO's default, and asks for nothing where there is none."""
    asked = columns.response_column
    return asked if asked != "text" or "text" in row else None


def _pair(row: Row, columns: DatasetConfig) -> Example | None:
    """A prompt, perhaps with context, and the answer to it."""
    prompt = columns.prompt_column or columns.instruction_column or _first(row, PROMPTS)
    response = _response(row, columns) or _first(row, RESPONSES)
    if prompt is None or response is None:
        return None
    asked, answer = _value(row, prompt), _value(row, response)
    if isinstance(asked, list) and isinstance(answer, list):
        return _messages([*asked, *answer])
    context = columns.context_column or _first(row, CONTEXTS)
    parts = [_text(asked, prompt), _text(row.get(context) or "", context) if context else ""]
    question = "\n\n".join(part for part in parts if part.strip())
    return _messages([{"role": "user", "content": question}, {"role": "assistant", "content": _text(answer, response)}])


def _plain(row: Row, columns: DatasetConfig) -> Example | None:
    column = _response(row, columns) or "text"
    if column not in row and column == "text":
        return None
    text = _text(_value(row, column), column)
    if not text.strip():
        raise ValueError(f"column {column} is empty")
    return text


_SHAPES: tuple[Callable[[Row, DatasetConfig], Example | None], ...] = (_chat, _pair, _plain)


def _first(row: Row, names: Iterable[str]) -> str | None:
    return next((name for name in names if row.get(name) is not None), None)


def _value(row: Row, column: str) -> Any:
    if column not in row:
        raise ValueError(f"there is no column {column}; the columns are {', '.join(map(str, row))[:200]}")
    return row[column]


def _messages(value: Any) -> list[Message]:
    """OpenAI's `role` and `content`, or ShareGPT's `from` and `value`; with an answer to learn."""
    if isinstance(value, str):  # how a CSV file holds a conversation
        value = _parsed(value.encode())
    if not isinstance(value, list):
        raise ValueError(f"the conversation is {type(value).__name__}, not a list of messages")  # noqa: TRY004
    messages = [_message(message) for message in value]
    if not any(message["role"] == "assistant" and message["content"].strip() for message in messages):
        raise ValueError("the conversation has no answer: no assistant message with text")
    return messages


def _message(message: Any) -> Message:
    if not isinstance(message, Mapping):
        raise ValueError(f"a message is {type(message).__name__}, not an object with role and content")  # noqa: TRY004
    role = message.get("role", message.get("from"))
    if role not in ROLES:
        raise ValueError(f"a message has the unknown role {role!r}; use system, user or assistant")
    return {"role": ROLES[role], "content": _text(message.get("content", message.get("value")), "content")}


def _text(value: Any, column: str) -> str:
    if isinstance(value, list) and all(isinstance(part, Mapping) and part.get("type") == "text" for part in value):
        value = "".join(str(part.get("text") or "") for part in value)
    if isinstance(value, (int, float)):  # a label, a number as an answer
        value = str(value)
    if not isinstance(value, str):
        raise ValueError(f"{column} is {type(value).__name__}, not text")  # noqa: TRY004
    try:
        value.encode()
    except UnicodeEncodeError as error:  # JSON can write one, as scraped data does; no tokenizer reads it
        raise ValueError(f"{column} has half of a character, {value[error.start]!a}") from error
    return value
