"""What kind of file this is, told from its first bytes: names and content types lie, and login pages say `.parquet`."""

import re
from pathlib import Path
from typing import Literal

from tuning.errors import DataInvalid

Format = Literal["parquet", "json", "csv"]
"""`json` is an array, an object or one object per line."""

HEAD_BYTES = 16 * 1024
"""More than enough for every sign looked for."""

_OTHERS = (
    (b"\x1f\x8b", "gzip archive"),
    (b"PK\x03\x04", "zip archive"),
    (b"\x28\xb5\x2f\xfd", "zstd archive"),
    (b"BZh", "bzip2 archive"),
    (b"\xfd7zXZ", "xz archive"),
    (b"ARROW1", "Arrow file"),
    (b"%PDF", "PDF"),
    (b"version https://git-lfs", "Git LFS pointer, not the file itself"),
)


def sniff(head: bytes) -> Format:
    """The format of a file that starts like this; DataInvalid says what it is instead."""
    if head.startswith(b"PAR1"):
        return "parquet"
    if not head.strip():
        raise DataInvalid("the file is empty; give a file with rows")
    for sign, name in _OTHERS:
        if head.startswith(sign):
            raise DataInvalid(f"the file is a {name}; give a parquet, JSON, JSON lines or CSV file")
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
    raise DataInvalid(f"the file starts with {head[:24]!r}; give a parquet, JSON, JSON lines or CSV file")


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
