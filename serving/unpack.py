"""The three files of an adapter out of an image's layers, from hands that nobody vouches for.

Members are read as a stream and only the wanted names under /data are ever written, as new regular files into an empty
folder: no link, device or path of the archive reaches the file system. Digests, sizes and totals are checked on the
way; whiteouts of later layers remove what earlier ones had. Knows files and tar, neither registries nor models.
"""

import gzip
import hashlib
import io
import tarfile
import zlib
from collections.abc import Mapping
from pathlib import Path

from serving import errors
from serving.registry import Layer

KiB, MiB, GiB = 1 << 10, 1 << 20, 1 << 30

WANTED: Mapping[str, int] = {
    "adapter_config.json": MiB,
    "adapter_model.safetensors": 8 * GiB,
    "chat_template.jinja": MiB,
}
"""Names under /data and the most bytes of each."""

REQUIRED = ("adapter_config.json", "adapter_model.safetensors")
MAX_UNPACKED = 24 * GiB
"""Of a whole image, as the archives say and as they decompress."""

WHITEOUT = ".wh."


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
            raise errors.NotAnAdapter(f"{self._what} is larger than {self._limit} bytes")
        self.hash.update(data)
        return data

    def drain(self) -> None:
        """Read to the end."""
        while self.read(MiB):
            pass


def unpack(blobs: Path, layers: tuple[Layer, ...], target: Path, *, limit: int = MAX_UNPACKED) -> None:
    """Write the wanted files of the layers in `blobs` into the new folder `target`; raises NotAnAdapter."""
    target.mkdir(parents=True)
    for number, layer in enumerate(layers):
        part = target / f"layer-{number}"
        part.mkdir()
        limit -= _unpack_layer(blobs / layer.digest.removeprefix("sha256:"), layer, part, target, limit)
        for file in part.iterdir():
            file.replace(target / file.name)
        part.rmdir()
    for name in REQUIRED:
        if not (target / name).is_file():
            raise errors.NotAnAdapter(f"the image has no /data/{name}")


def _unpack_layer(blob: Path, layer: Layer, part: Path, below: Path, limit: int) -> int:
    """One layer's wanted files into `part`; its whiteouts remove from `below`. Returns the bytes it unpacked to."""
    with blob.open("rb") as file:
        stored = Reader(file, layer.size, f"layer {layer.digest}")
        unpacked = Reader(_decompressed(stored, file, layer), limit, "the image when unpacked")
        try:
            with tarfile.open(fileobj=unpacked, mode="r|") as archive:
                for member in archive:
                    _take(archive, member, part, below)
            unpacked.drain()
            stored.drain()
        except (tarfile.TarError, zlib.error, gzip.BadGzipFile, EOFError, UnicodeDecodeError) as error:
            raise errors.NotAnAdapter(f"layer {layer.digest} is no readable archive: {error}") from error
    if f"sha256:{stored.hash.hexdigest()}" != layer.digest or stored.count != layer.size:
        raise errors.NotAnAdapter(f"layer {layer.digest} does not have the digest and size that the manifest says")
    return unpacked.count


def _decompressed(stored: Reader, file: io.BufferedReader, layer: Layer) -> io.BufferedIOBase:
    magic = file.peek(4)[:4]
    if magic.startswith(b"\x28\xb5\x2f\xfd"):
        raise errors.NotAnAdapter(f"layer {layer.digest} is compressed with zstd; build the image with gzip layers")
    return gzip.GzipFile(fileobj=stored) if magic.startswith(b"\x1f\x8b") else stored


def _take(archive: tarfile.TarFile, member: tarfile.TarInfo, part: Path, below: Path) -> None:
    """Write one member if it is wanted; obey it if it is a whiteout; refuse it if it tries to leave the archive."""
    path = member.name.removeprefix("./")
    parts = [piece for piece in path.split("/") if piece not in ("", ".")]
    if path.startswith("/") or ".." in parts:
        raise errors.NotAnAdapter(f"the image has a file named {member.name!r}, which points outside of it")
    match parts:
        case ["data"] if not member.isdir():
            raise errors.NotAnAdapter("/data in the image is not a folder")
        case [".wh.data" | ".wh..wh..opq"] | ["data", ".wh..wh..opq"]:
            _remove(below, WANTED)
        case ["data", name] if name.startswith(WHITEOUT):
            _remove(below, (name.removeprefix(WHITEOUT),))
        case ["data", name] if name in WANTED:
            _write(archive, member, part / name, WANTED[name])


def _remove(below: Path, names: Mapping[str, int] | tuple[str, ...]) -> None:
    for name in names:
        if name in WANTED:
            (below / name).unlink(missing_ok=True)


def _write(archive: tarfile.TarFile, member: tarfile.TarInfo, file: Path, limit: int) -> None:
    if not member.isreg():
        raise errors.NotAnAdapter(f"/data/{file.name} in the image is not a regular file")
    if member.size > limit:
        raise errors.NotAnAdapter(f"/data/{file.name} has {member.size} bytes; {limit} are allowed")
    content = archive.extractfile(member)
    assert content is not None
    file.unlink(missing_ok=True)
    with file.open("xb") as target:  # new, so it cannot be a link that was put there
        while piece := content.read(MiB):
            target.write(piece)
