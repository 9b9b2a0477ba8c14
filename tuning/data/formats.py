"""What kind of file this is, told from its first bytes: names and content types lie, and login pages say `.parquet`.

Text may be packed by gzip, zstd, bzip2 or xz; it is unpacked as it is read.
"""

import bz2
import contextlib
import gzip
import io
import lzma
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

from tuning.errors import DataInvalid

Format = Literal["parquet", "arrow", "json", "csv"]
"""`json` is an array, an object or one object per line."""

HEAD_BYTES = 16 * 1024
"""More than enough for every sign looked for."""

_OTHERS = (
    (b"PK\x03\x04", 0, "zip archive"),
    (b"ustar", 257, "tar archive, which as webdataset holds pictures and sounds"),
    (b"%PDF", 0, "PDF"),
    (b"version https://git-lfs", 0, "Git LFS pointer, not the file itself"),
)
_STREAM = b"\xff\xff\xff\xff"
"""How Arrow's format for streams begins, which is also that of `save_to_disk`."""
_KNOWN = "a parquet, JSON, JSON lines, CSV or Arrow file"


def sniff(head: bytes) -> Format:
    """The format of a file that starts like this; DataInvalid says what it is instead."""
    if head.startswith(b"PAR1"):
        return "parquet"
    if head.startswith((b"ARROW1", _STREAM)):
        return "arrow"
    if not head.strip():
        raise DataInvalid("the file is empty; give a file with rows")
    if is_packed(head):
        return _sniff_packed(head)
    for sign, place, name in _OTHERS:
        if head.startswith(sign, place):
            raise DataInvalid(f"the file is a {name}; give {_KNOWN}")
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if re.match(rb"<(!doctype|html|head|\?xml|!--)", text, re.IGNORECASE):
        raise DataInvalid(
            f"the file is a web page ({_title(text)}), most likely for logging in; "
            "give the address of the file itself, one that needs no login"
        )
    if text[:1] in (b"{", b"["):
        return "json"
    line = text.split(b"\n", maxsplit=1)[0]
    if _is_text(head) and re.search(rb"[,;\t]", line):
        return "csv"
    raise DataInvalid(f"the file starts with {head[:24]!r}; give {_KNOWN}")


def is_packed(head: bytes) -> bool:
    """Whether it is to be unpacked before it is read."""
    return any(head.startswith(sign) for sign in _UNPACKERS)


def unpacked(head: bytes, most: int = HEAD_BYTES) -> bytes:
    """What the head of a packed file begins with, as far as it is there."""
    found = b""
    with contextlib.suppress(OSError, EOFError, ValueError, lzma.LZMAError), unpacking(io.BytesIO(head)) as file:
        while len(found) < most and (piece := file.read1(512)):
            found += piece
    return found[:most]


def unpacking(file: BinaryIO) -> io.BufferedReader:
    """The file's bytes, unpacked if they are packed."""
    sign = file.read(6)
    file.seek(0)
    opener = next((opener for known, opener in _UNPACKERS.items() if sign.startswith(known)), None)
    return cast("io.BufferedReader", opener(file) if opener else file)


def _zstd(file: BinaryIO) -> Any:
    import pyarrow  # noqa: PLC0415 -- 0.2 s

    return io.BufferedReader(pyarrow.CompressedInputStream(pyarrow.PythonFile(file, mode="r"), "zstd"))


_UNPACKERS: dict[bytes, Callable[[BinaryIO], Any]] = {
    b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file),
    b"\x28\xb5\x2f\xfd": _zstd,
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ": lzma.LZMAFile,
}


def _sniff_packed(head: bytes) -> Format:
    inner = unpacked(head)
    if not inner or is_packed(inner):
        raise DataInvalid(f"the file is packed, and cannot be unpacked; give {_KNOWN}")
    if (kind := sniff(inner)) in {"parquet", "arrow"}:
        raise DataInvalid(f"the file is a {kind} file that is packed once more; give it as it was")
    return kind


def refuse_cut(path: Path) -> None:
    """DataInvalid for a parquet file without its end."""
    with path.open("rb") as file:
        if file.read(4) == b"PAR1":
            size = file.seek(0, 2)
            file.seek(max(0, size - 4))
            if file.read() != b"PAR1":
                raise DataInvalid(f"the parquet file of {size:,} bytes has no end; upload it again")


def _title(page: bytes) -> str:
    found = re.search(rb"<title[^>]*>\s*(.{0,80}?)\s*</title>", page, re.IGNORECASE | re.DOTALL)
    return repr(found.group(1).decode(errors="replace")) if found else "without a title"


def _is_text(head: bytes) -> bool:
    cut = head[: head.rfind(b"\n") + 1] or head[:-4]  # the last character may be cut in two
    try:
        return "\0" not in cut.decode("utf-8-sig")
    except UnicodeDecodeError:
        return False
