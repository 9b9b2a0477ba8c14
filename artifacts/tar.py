"""Archives from hands that nobody vouches for, read as a stream by the standard library, in a bounded memory.

It reads a long name, the extensions of a member and the list of a file's holes whole before it names the member, as
many bytes as the archive says, and it keeps all members: each of these could be all that a machine has.
"""

import io
import tarfile
from collections.abc import Iterator
from typing import Any, Self

_MOST = 1 << 20
"""Bytes of the headers before one member, and of all that speak for the whole archive: a path has at most 4 KiB."""
_IN_A_ROW = 16
"""The library calls itself for each one."""
_MEMBER = frozenset(
    {tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.XGLTYPE}
)
_MORE_HOLES = 482
"""Where a sparse member's header says that its list of holes goes on."""


class _Header(tarfile.TarInfo):
    """A member's header, refused before what belongs to it is read. Counts: each archive has a class of its own."""

    row = 0
    before = 0
    shared = 0

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """As of the library."""
        made = super().frombuf(buf, encoding, errors)
        if made.size < 0 or (made.type == tarfile.GNUTYPE_SPARSE and buf[_MORE_HOLES]):
            raise tarfile.ReadError(f"{made.name[:60]!r} has a size below zero or too many holes")
        if made.type not in _MEMBER:
            cls.row = cls.before = 0
            return made
        cls.row += 1
        cls.before += made.size
        cls.shared += made.size if made.type == tarfile.XGLTYPE else 0
        if cls.row > _IN_A_ROW or max(cls.before, cls.shared) > _MOST:
            raise tarfile.ReadError(f"it has headers of more than {_MOST} bytes, or {_IN_A_ROW} before one file")
        return made

    def _proc_gnusparse_10(self, *_: Any) -> None:
        """The library's way to a list of holes of any length."""
        raise tarfile.ReadError("it has a file with holes; make the archive without --sparse")


class _Ending(io.BufferedIOBase):
    """A stream that is not read on and on beyond its end: the library does, for as many bytes as a member claims."""

    def __init__(self, stream: io.BufferedIOBase) -> None:
        super().__init__()
        self._stream = stream
        self._beyond = 0

    def read(self, size: int | None = -1, /) -> bytes:
        """As of the stream."""
        data = self._stream.read(size)
        self._beyond = 0 if data else self._beyond + 1
        if self._beyond > _IN_A_ROW:
            raise tarfile.ReadError("it ends before its last file does")
        return data


def members(stream: io.BufferedIOBase) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """The archive and each of its members in turn; raises TarError and ValueError."""
    own = type("_Header", (_Header,), {})
    with tarfile.open(fileobj=_Ending(stream), mode="r|", tarinfo=own) as archive:
        while (member := archive.next()) is not None:
            yield archive, member
            archive.members.clear()  # type: ignore[attr-defined]  # no word for it before Python 3.13
