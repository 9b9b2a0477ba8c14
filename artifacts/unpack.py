"""The wanted files of an image out of its layers, from hands that nobody vouches for.

Members are read as a stream and only wanted regular files are ever written, each as a new file under a number of its
own; they get their names when their layer is whole, in a folder where nobody else has put anything. So no link, device
or path of an archive reaches the file system. Digests, sizes and totals are checked on the way; whiteouts of later
layers remove what earlier ones had. What the layers so far amount to is on the disk alone: a later process may go on.
Knows files and tar, neither registries nor what the files are.
"""

import contextlib
import gzip
import hashlib
import io
import os
import shutil
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from artifacts import errors, tar
from artifacts.manifest import Layer

KiB, MiB, GiB = 1 << 10, 1 << 20, 1 << 30

MAX_UNPACKED = 24 * GiB
"""Of a whole image, as the archives say and as they decompress, unless who asks says otherwise."""
LOOK_STORED, LOOK_UNPACKED = 64 * MiB, 256 * MiB
"""Of an image that is only looked at: together they fit the check pod's 512 MiB, wherever its node keeps /tmp. What is
larger is looked into on the node that is bought for it."""
MAX_FILES = 10_000
"""Wanted ones of a whole image."""

WHITEOUT = ".wh."
OPAQUE = ".wh..wh..opq"

Cap = Callable[[str], int | None]
"""The most bytes of a file by its path in the image, `data/rows.csv`; None for one that is not wanted."""


def unpack(
    blobs: Path, layers: Iterable[Layer], target: Path, cap: Cap, *, limit: int = MAX_UNPACKED
) -> tuple[str, ...]:
    """Write what `cap` wants of the layers in `blobs` into the new folder `target`, under the paths of the image.

    Returns the wanted paths that are links, devices or have holes, and so were left out; raises Unusable.
    """
    tree = Tree(target, cap, limit=limit)
    try:
        for layer in layers:
            tree.add(blobs / layer.digest.removeprefix("sha256:"), layer)
    except BaseException:
        shutil.rmtree(target)
        raise
    return tuple(sorted(tree.odd))


class Tree:
    """What the layers so far amount to: wanted files below a folder, under their paths in the image."""

    def __init__(self, target: Path, cap: Cap, *, limit: int = MAX_UNPACKED) -> None:
        target.mkdir(parents=True, exist_ok=True)
        self._target = target
        self._parts = target.with_name(f".{target.name}-parts")
        self._cap = cap
        self._left = self._room = limit
        self._too_large = errors.TooLarge(f"the image when unpacked is larger than {limit:,} bytes")
        self._count = 0
        self._new: dict[str, Path] = {}
        self.odd: set[str] = set()
        """Wanted paths that are no regular files, and so were left out."""

    def add(self, blob: Path, layer: Layer, *, hashed: bool = False) -> None:
        """One layer over what there is; `hashed` where its digest was seen to be right when it was fetched."""
        with self._layer():
            if layer.title:
                self._adopt(blob, layer, hashed=hashed)
            else:
                self._unpack(blob, layer, hashed=hashed)

    @contextlib.contextmanager
    def _layer(self) -> Iterator[None]:
        """What is new comes over what was there: a whiteout never removes what its own layer has."""
        shutil.rmtree(self._parts, ignore_errors=True)  # of a process that was killed
        self._parts.mkdir()
        self._new = {}
        try:
            yield
            for name in self._new:
                if taken := [folder for folder in _above(name) if folder in self._new]:
                    raise errors.Unusable(f"the image has /{taken[0]} as a file and as a folder")
            for name, part in self._new.items():
                self._place(name, part)
        finally:
            shutil.rmtree(self._parts)

    def _adopt(self, blob: Path, layer: Layer, *, hashed: bool) -> None:
        """A layer that is one file and no archive."""
        name = "/".join(_pieces(layer.title))
        if not name or (most := self._cap(name)) is None:
            return
        with blob.open("rb") as file:
            stored = _stored(file, layer, hashed=hashed)
            if not hashed:
                stored.drain()
                stored.check(layer)
        self._new[name] = blob.rename(self._part(name, layer.size, most))
        self.odd.discard(name)

    def _unpack(self, blob: Path, layer: Layer, *, hashed: bool) -> None:
        with blob.open("rb") as file:
            stored = _stored(file, layer, hashed=hashed)
            unpacked = _Reader(_decompressed(stored, file, layer), self._left, self._too_large)
            try:
                for archive, member in tar.members(unpacked):
                    self._take(archive, member)
                unpacked.drain()
                stored.drain()
            except (tarfile.TarError, zlib.error, gzip.BadGzipFile, EOFError, ValueError) as error:
                raise errors.Unusable(f"layer {layer.digest} is no readable archive: {error}") from error
        stored.check(layer)
        self._left -= unpacked.count

    def _take(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        """Write one member if it is wanted, obey it if it is a whiteout, refuse it if it tries to leave the archive."""
        pieces = _pieces(member.name)
        if not pieces or member.isdir():
            return
        name, folder = "/".join(pieces), "/".join(pieces[:-1])
        if pieces[-1] == OPAQUE:
            self._remove(folder)
        elif pieces[-1].startswith(WHITEOUT):
            self._remove("/".join([*pieces[:-1], _whited_out(pieces[-1])]))
        elif (most := self._cap(name)) is not None:
            self._write(archive, member, name, most)
        elif self._cap(f"{name}/x") is not None:
            raise errors.Unusable(f"/{name} in the image is not a folder")

    def _write(self, archive: tarfile.TarFile, member: tarfile.TarInfo, name: str, most: int) -> None:
        if not member.isreg() or member.issparse():  # a sparse one of a few bytes could fill the disk
            self._remove(name)
            self._new.pop(name, None)
            self.odd.add(name)
            return
        part = self._part(name, member.size, most)
        content = archive.extractfile(member)
        assert content is not None
        with part.open("xb") as file:
            shutil.copyfileobj(content, file, MiB)
        self.odd.discard(name)
        self._new[name] = part

    def _part(self, name: str, size: int, most: int) -> Path:
        """Where a wanted file of this name and size is written first."""
        if _is_long(name):
            raise errors.Unusable(f"the image has a file with a name of {len(name)} characters: {name[:60]!r}...")
        self._count += 1
        self._room -= size
        if size > most:
            raise errors.Unusable(f"/{name} has {size} bytes; {most} are allowed")
        if self._room < 0:
            raise self._too_large
        if self._count > MAX_FILES:
            raise errors.Unusable(f"the image has more than {MAX_FILES} files that are wanted")
        return self._parts / str(self._count)

    def _place(self, name: str, part: Path) -> None:
        """Give a file its name: it takes the place of a folder, and its folders that of files."""
        path = self._target / name
        for folder in _above(name):
            if not _is_folder(self._target / folder):
                _clear(self._target / folder)
        _clear(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        part.replace(path)

    def _remove(self, name: str) -> None:
        """Forget a path and all below it; the empty one is the whole tree."""
        self.odd -= {each for each in self.odd if not name or f"{each}/".startswith(f"{name}/")}
        if _is_long(name):
            return  # it was never written
        _clear(self._target / name)
        self._target.mkdir(exist_ok=True)
        for folder in _above(name):  # from below: one with nothing in it is none of the image's
            with contextlib.suppress(OSError):
                (self._target / folder).rmdir()


class _Reader(io.BufferedIOBase):
    """A blob or what it decompresses to: counts, hashes and stops at a limit."""

    def __init__(self, source: io.BufferedIOBase, limit: int, above: Exception, *, hashes: bool = False) -> None:
        super().__init__()
        self._source = source
        self._limit = limit
        self._above = above
        self._hash = hashlib.sha256() if hashes else None
        self.count = 0

    def readable(self) -> bool:
        """It is, which pyarrow wants to know."""
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        """As of a file."""
        data = self._source.read(MiB if size is None or size < 0 else min(size, MiB))
        self.count += len(data)
        if self.count > self._limit:
            raise self._above
        if self._hash:
            self._hash.update(data)
        return data

    def drain(self) -> None:
        """Read to the end."""
        while self.read(MiB):
            pass

    def check(self, layer: Layer) -> None:
        """Raise unless all that was read is the layer."""
        digest = f"sha256:{self._hash.hexdigest()}" if self._hash else layer.digest
        if (digest, self.count) != (layer.digest, layer.size):
            raise errors.Unusable(f"layer {layer.digest} does not have the digest and size that the manifest says")


class _Zstd(io.BufferedIOBase):
    """What a stream of zstd decompresses to, by pyarrow: Python has it from 3.14 on."""

    def __init__(self, stored: _Reader, layer: Layer) -> None:
        super().__init__()
        try:
            import pyarrow  # noqa: PLC0415 - half a second that gzip need not pay
        except ImportError as error:
            raise errors.Unusable(
                f"layer {layer.digest} is compressed with zstd, which takes pyarrow to read; install it, or build the"
                " image with plain or gzip layers"
            ) from error
        self._stream = pyarrow.CompressedInputStream(pyarrow.PythonFile(stored, mode="r"), "zstd")

    def read(self, size: int | None = -1, /) -> bytes:
        """As of a file."""
        try:
            return bytes(self._stream.read(MiB if size is None or size < 0 else size))
        except OSError as error:
            if error.errno is not None:
                raise
            raise tarfile.ReadError(f"its zstd stream: {error}") from error


def _stored(file: io.BufferedReader, layer: Layer, *, hashed: bool) -> _Reader:
    above = errors.Unusable(f"layer {layer.digest} is larger than {layer.size} bytes")
    return _Reader(file, layer.size, above, hashes=not hashed)


def _pieces(name: str) -> list[str]:
    """The parts of a path in an archive; raises Unusable for one that leads out of it."""
    path = name.removeprefix("./")
    pieces = [piece for piece in path.split("/") if piece not in ("", ".")]
    if path.startswith("/") or ".." in pieces or "\0" in path:
        raise errors.Unusable(f"the image has a file named {name!r}, which points outside of it")
    try:
        os.fsencode(path)
    except UnicodeEncodeError as error:
        raise errors.Unusable(f"the image has a file named {name!r}, which no disk can have") from error
    return pieces


def _whited_out(piece: str) -> str:
    """What a whiteout of this name removes from its folder; raises Unusable where that is not one thing in it."""
    name = piece.removeprefix(WHITEOUT)
    if name in ("", ".", ".."):
        raise errors.Unusable(f"the image has a whiteout named {piece!r}, which removes nothing of its folder")
    return name


def _is_long(name: str) -> bool:
    """Whether no file system takes such a path, or no sane image has one so deep."""
    pieces = name.split("/")
    return len(os.fsencode(name)) > 2048 or len(pieces) > 100 or any(len(os.fsencode(piece)) > 255 for piece in pieces)


def _above(name: str) -> list[str]:
    """The folders that a path lies in, from below."""
    return [name.rsplit("/", at)[0] for at in range(1, name.count("/") + 1)]


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _clear(path: Path) -> None:
    if _is_folder(path):
        shutil.rmtree(path)
    elif path.is_symlink() or path.is_file():
        path.unlink()


def _decompressed(stored: _Reader, file: io.BufferedReader, layer: Layer) -> io.BufferedIOBase:
    magic = file.peek(4)[:4]
    if magic.startswith(b"\x28\xb5\x2f\xfd"):
        return _Zstd(stored, layer)
    return gzip.GzipFile(fileobj=stored) if magic.startswith(b"\x1f\x8b") else stored
