"""TensorBoard's event files, in a folder of the output's volume: `tensorboard --logdir` on the volume draws them.

A file is records (length, checksum, bytes, checksum) of one protocol buffer each; of its messages four fields are used,
so that they are written by hand. Each attempt writes a file of its own into the run's folder, as TensorBoard wants it.
"""

import re
import struct
import time
from pathlib import Path
from typing import BinaryIO

from tuning.tracking.run import Point, Run

FOLDER = "tensorboard"
_POLYNOMIAL = 0x82F63B78


class Files:
    """The event file of this attempt."""

    name = "tensorboard"

    def __init__(self, run: Run, results: str) -> None:
        shown = re.sub(r"[^A-Za-z0-9._-]", "_", run.name).strip("._") or "run"
        self._folder = Path(results, FOLDER, f"{shown}-{run.id.removeprefix('kaito-')}")
        self._file: BinaryIO | None = None

    def open(self) -> None:
        """Begin the file."""
        self._folder.mkdir(parents=True, exist_ok=True)
        now = time.time()
        self._file = (self._folder / f"events.out.tfevents.{now:.6f}.kaito").open("xb")
        self._file.write(record(event(now, 0, _bytes(3, b"brain.Event:2"))))

    def log(self, points: list[Point]) -> None:
        """A record for each."""
        assert self._file
        for point in points:
            summary = b"".join(_bytes(1, _bytes(1, name.encode()) + _float(2, v)) for name, v in point.values.items())
            self._file.write(record(event(point.seconds, point.step, _bytes(5, summary))))
        self._file.flush()

    def close(self, _outcome: str) -> None:
        """End the file."""
        if self._file:
            self._file.close()


def event(seconds: float, step: int, what: bytes) -> bytes:
    """The message Event."""
    return b"\x09" + struct.pack("<d", seconds) + b"\x10" + _varint(step) + what


def record(data: bytes) -> bytes:
    """One record of the file."""
    length = struct.pack("<Q", len(data))
    return length + _masked(length) + data + _masked(data)


def _masked(data: bytes) -> bytes:
    checksum = crc32c(data)
    return struct.pack("<I", (((checksum >> 15) | (checksum << 17)) + 0xA282EAD8) & 0xFFFFFFFF)


def crc32c(data: bytes) -> int:
    """Castagnoli's, which zlib has not."""
    checksum = 0xFFFFFFFF
    for byte in data:
        checksum = (checksum >> 8) ^ _TABLE[(checksum ^ byte) & 0xFF]
    return checksum ^ 0xFFFFFFFF


def _entry(index: int) -> int:
    for _ in range(8):
        index = (index >> 1) ^ (_POLYNOMIAL if index & 1 else 0)
    return index


_TABLE = [_entry(index) for index in range(256)]


def _bytes(field: int, content: bytes) -> bytes:
    return bytes([field << 3 | 2]) + _varint(len(content)) + content


def _float(field: int, value: float) -> bytes:
    return bytes([field << 3 | 5]) + struct.pack("<f", value)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])
