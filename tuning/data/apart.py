"""Reads data files in a process of its own: a file that crashes a library, or unpacks without end, ends that one.

Its memory is bounded, and it says row by row what it has read, as JSON. What it says is bounded too: rows are held in
memory until they are tokens.

    python -m tuning.data.apart      reads its order from stdin, see `_Order`
"""

import base64
import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pydantic

from tuning.data.fetch import File
from tuning.errors import DataInvalid
from tuning.training_config import DatasetConfig

MOST_MEMORY = 8 << 30
"""For the reading process; of a smaller machine or pod it may have half."""
MOST_ROW = 32 << 20
"""Bytes of one row, as JSON."""
LAST_WORDS = 2000

_CGROUPS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
_ALONE = {"ARROW_DEFAULT_MEMORY_POOL": "system", "ARROW_IO_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
"""Allocators that reserve nothing ahead: what is bounded is what is reserved."""


class _Order(pydantic.BaseModel):
    """What is to be read."""

    files: list[tuple[str, str, str]]
    """Field, name and path of each."""
    columns: DatasetConfig
    memory: int


def memory() -> int:
    """Bytes of this machine or pod."""
    found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in _CGROUPS:
        with contextlib.suppress(OSError, ValueError):
            found = min(found, int(path.read_text(encoding="ascii")))
    return found


def read(
    files: list[File], columns: DatasetConfig, *, most: int = 0, room: int = 0
) -> Iterator[tuple[File, Iterator[Any]]]:
    """Each file with its rows, bad ones as errors; `most` bounds the reader's memory, `room` that of all rows."""
    most, room = most or min(MOST_MEMORY, memory() // 2), room or memory() // 4
    order = _Order(files=[(file.field, file.name, str(file.path)) for file in files], columns=columns, memory=most)
    found_by = os.pathsep.join(path for path in sys.path if path)  # libraries too: an image has them where it likes
    process = subprocess.Popen(  # noqa: S603
        [sys.executable, "-P", "-m", __name__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | _ALONE | {"PYTHONPATH": found_by},
    )
    assert process.stdin
    assert process.stdout
    try:
        with contextlib.suppress(BrokenPipeError), process.stdin:
            process.stdin.write(order.model_dump_json().encode())
        said = _Said(process, process.stdout, room)
        for file in files:
            yield file, said.rows(file)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        assert process.stderr
        process.stderr.close()


class _Said:
    """What the reading process says, line by line."""

    def __init__(self, process: "subprocess.Popen[bytes]", lines: IO[bytes], room: int) -> None:
        self._process = process
        self._lines = lines
        self._room = self._left = room

    def rows(self, file: File) -> Iterator[Any]:
        """Until the file's end; raises what the reader raised."""
        what = f"{file.field} ({file.name})"
        while line := self._lines.readline(2 * MOST_ROW):
            self._left -= len(line)
            if self._left < 0:
                raise DataInvalid(
                    f"{what}: the rows have more than the {self._room:,} bytes that there is memory for; give fewer"
                )
            if not line.endswith(b"\n"):
                break  # it died within a line
            kind, value = json.loads(line)
            if kind == "row":
                yield value
            elif kind == "bad row":
                yield ValueError(value)
            elif kind == "end":
                return
            else:
                raise _ERRORS[kind](value)
        raise DataInvalid(f"{what}: {self._end()}; write the file anew, with another program")

    def _end(self) -> str:
        code = self._process.wait()
        assert self._process.stderr
        words = self._process.stderr.read()[-LAST_WORDS:].decode(errors="replace").strip().splitlines()
        why = f"signal {signal.Signals(-code).name}" if code < 0 else f"{words[-1] if words else code}"
        return f"reading it ends the process that reads ({why})"


def _disk(value: list[Any]) -> OSError:
    return OSError(*value)


_ERRORS: dict[str, Callable[[Any], Exception]] = {"bad file": DataInvalid, "disk": _disk}


def main() -> None:
    """Read what the order says, and say it."""
    from tuning.data import rows  # noqa: PLC0415 -- it imports this module

    order = _Order.model_validate_json(sys.stdin.buffer.read())
    resource.setrlimit(resource.RLIMIT_DATA, (order.memory, order.memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # it reads
    for field, name, path in order.files:
        file = File(field, name, Path(path), 0, "")
        try:
            for row in rows.each(file, order.columns):
                sys.stdout.write(_told(row) + "\n")
        except DataInvalid as error:
            _say("bad file", str(error))
        except MemoryError:
            _say("bad file", f"{field} ({name}): takes more than {order.memory:,} bytes of memory to read; split it")
        except OSError as error:
            _say("disk", [error.errno, error.strerror, error.filename])
        else:
            _say("end", None)
    sys.stdout.flush()


def _told(row: Any) -> str:
    """The row as one that can be said."""
    if isinstance(row, ValueError):
        return json.dumps(["bad row", str(row)[:LAST_WORDS]])
    try:
        text = json.dumps(["row", row], default=_plain)
    except (ValueError, TypeError, RecursionError) as error:
        return json.dumps(["bad row", f"it is nothing that JSON has: {error}"])
    return text if len(text) <= MOST_ROW else json.dumps(["bad row", f"it has {len(text):,} bytes"])


def _plain(value: Any) -> Any:
    """What JSON does not have, as text; bytes are text or nothing."""
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return base64.b64encode(value[:30]).decode()
    return str(value)


def _say(kind: str, value: Any) -> None:
    sys.stdout.write(json.dumps([kind, value]) + "\n")


if __name__ == "__main__":
    main()
