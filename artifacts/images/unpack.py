"""The wanted files of an image out of its layers, from hands that nobody vouches for.

Members are read as a stream and only wanted regular files are ever written, each as a new file under a number of its
own; they get their names at the end, in an empty folder. So no link, device or path of an archive reaches the file
system. Digests, sizes and totals are checked on the way; whiteouts of later layers remove what earlier ones had. Knows
files and tar, neither registries nor what the files are.
"""

import gzip
import hashlib
import io
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

from artifacts.images import errors, tar
from artifacts.images.registry import Layer

KiB, MiB, GiB = 1 << 10, 1 << 20, 1 << 30

MAX_UNPACKED = 24 * GiB
"""Of a whole image, as the archives say and as they decompress, unless who asks says otherwise."""
MAX_FILES = 10_000
"""Wanted ones of a whole image."""

WHITEOUT = ".wh."
OPAQUE = ".wh..wh..opq"

Cap = Callable[[str], int | None]
"""The most bytes of a file by its path in the image, `data/rows.csv`; None for one that is not wanted."""


class Reader(io.BufferedIOBase):
    """A blob or what it decompresses to: counts, hashes and stops at a limit."""

    def __init__(self, source: io.BufferedIOBase, limit: int, what: str) -> None:
        super().__init__()
        self._source = source
        self._limit = limit
        self._what = what
        self.count = 0
        self.hash = hashlib.sha256()

    def read(self, size: int | None = -1, /) -> bytes:
        """As of a file."""
        data = self._source.read(MiB if size is None or size < 0 else min(size, MiB))
        self.count += len(data)
        if self.count > self._limit:
            raise errors.ImageUnusable(f"{self._what} is larger than {self._limit} bytes")
        self.hash.update(data)
        return data

    def drain(self) -> None:
        """Read to the end."""
        while self.read(MiB):
            pass


def unpack(
    blobs: Path, layers: Iterable[Layer], target: Path, cap: Cap, *, limit: int = MAX_UNPACKED
) -> tuple[str, ...]:
    """Write what `cap` wants of the layers in `blobs` into the new folder `target`, under the paths of the image.

    Returns the wanted paths that are links, devices or have holes, and so were left out; raises ImageUnusable.
    """
    target.mkdir(parents=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".layers-") as parts:
        tree = _Tree(Path(parts), cap, limit)
        for layer in layers:
            limit -= _unpack_layer(blobs / layer.digest.removeprefix("sha256:"), layer, tree, limit)
        tree.place(target)
    return tuple(sorted(tree.odd))


class _Tree:
    """What the layers so far amount to: wanted files by their path in the image, and where their bytes lie."""

    def __init__(self, parts: Path, cap: Cap, limit: int) -> None:
        self._parts = parts
        self._cap = cap
        self._limit = self._left = limit
        self._count = 0
        self._files: dict[str, Path] = {}
        self._new: dict[str, Path] = {}
        self.odd: set[str] = set()

    def take(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        """Write one member if it is wanted, obey it if it is a whiteout, refuse it if it tries to leave the archive."""
        path = member.name.removeprefix("./")
        parts = [piece for piece in path.split("/") if piece not in ("", ".")]
        if path.startswith("/") or ".." in parts or "\0" in path:
            raise errors.ImageUnusable(f"the image has a file named {member.name!r}, which points outside of it")
        if not parts or member.isdir():
            return
        name, folder = "/".join(parts), "/".join(parts[:-1])
        if parts[-1] == OPAQUE:
            self._remove(folder)
        elif parts[-1].startswith(WHITEOUT):
            self._remove("/".join([*parts[:-1], parts[-1].removeprefix(WHITEOUT)]))
        elif (most := self._cap(name)) is not None:
            self._write(archive, member, name, most)
        elif self._cap(f"{name}/x") is not None:
            raise errors.ImageUnusable(f"/{name} in the image is not a folder")

    def layer_ends(self) -> None:
        """What the layer brought comes over what was there: a whiteout never removes what its own layer has."""
        folders = {folder for name in self._files for folder in _above(name)}
        for name in self._new:
            if name in folders:  # a file where a folder was
                self._remove(name)
            for folder in _above(name):  # or the other way round
                self._files.pop(folder, None)
        self._files |= self._new
        self._new = {}

    def place(self, target: Path) -> None:
        """Move the files to their names."""
        for name, part in self._files.items():
            try:
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                part.rename(target / name)
            except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
                raise errors.ImageUnusable(f"the image has /{name} as a file and as a folder") from error

    def _remove(self, name: str) -> None:
        """Forget a path and all below it; the empty one is the whole tree."""
        gone = [each for each in (*self._files, *self.odd) if not name or each == name or each.startswith(f"{name}/")]
        for each in gone:
            self._files.pop(each, None)
            self.odd.discard(each)

    def _write(self, archive: tarfile.TarFile, member: tarfile.TarInfo, name: str, most: int) -> None:
        if any(len(piece.encode(errors="replace")) > 255 for piece in name.split("/")) or len(name) > 1024:
            raise errors.ImageUnusable(f"the image has a file with a name of {len(name)} characters: {name[:60]!r}...")
        if not member.isreg() or member.issparse():  # a sparse one of a few bytes could fill the disk
            self._remove(name)
            self._new.pop(name, None)
            self.odd.add(name)
            return
        self._count += 1
        self._left -= member.size
        if member.size > most:
            raise errors.ImageUnusable(f"/{name} has {member.size} bytes; {most} are allowed")
        if self._left < 0:
            raise errors.ImageUnusable(f"the image when unpacked is larger than {self._limit} bytes")
        if self._count > MAX_FILES:
            raise errors.ImageUnusable(f"the image has more than {MAX_FILES} files that are wanted")
        content = archive.extractfile(member)
        assert content is not None
        part = self._parts / str(self._count)
        with part.open("xb") as file:
            while piece := content.read(MiB):
                file.write(piece)
        self.odd.discard(name)
        self._new[name] = part


def _above(name: str) -> list[str]:
    return [name.rsplit("/", at)[0] for at in range(1, name.count("/") + 1)]


def _unpack_layer(blob: Path, layer: Layer, tree: _Tree, limit: int) -> int:
    """One layer's wanted files into the tree. Returns the bytes it unpacked to."""
    with blob.open("rb") as file:
        stored = Reader(file, layer.size, f"layer {layer.digest}")
        unpacked = Reader(_decompressed(stored, file, layer), limit, "the image when unpacked")
        try:
            for archive, member in tar.members(unpacked):
                tree.take(archive, member)
            unpacked.drain()
            stored.drain()
        except (tarfile.TarError, zlib.error, gzip.BadGzipFile, EOFError, ValueError) as error:
            raise errors.ImageUnusable(f"layer {layer.digest} is no readable archive: {error}") from error
    if f"sha256:{stored.hash.hexdigest()}" != layer.digest or stored.count != layer.size:
        raise errors.ImageUnusable(f"layer {layer.digest} does not have the digest and size that the manifest says")
    tree.layer_ends()
    return unpacked.count


def _decompressed(stored: Reader, file: io.BufferedReader, layer: Layer) -> io.BufferedIOBase:
    magic = file.peek(4)[:4]
    if magic.startswith(b"\x28\xb5\x2f\xfd"):
        raise errors.ImageUnusable(f"layer {layer.digest} is compressed with zstd; build the image with gzip layers")
    return gzip.GzipFile(fileobj=stored) if magic.startswith(b"\x1f\x8b") else stored
