"""Files into a registry as plain layers, one file a layer, the same bytes for the same files, and nothing on the disk.

What the registry has is not sent again: a push that was cut is begun anew without loss. Knows no model, no adapter.
"""

import hashlib
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from artifacts import errors, manifest, registry

LAYER = "application/vnd.oci.image.layer.v1.tar"
_TRIES = 5


class Told(Protocol):
    """Who hears how it goes."""

    def sending(self, count: int) -> None:
        """So many bytes more were sent."""

    def there(self, count: int) -> None:
        """So many bytes need not be sent."""

    def say(self, text: str) -> None:
        """What a person may want to know."""


def layer(to: registry.Registry, name: str, file: Path, told: Told) -> dict[str, Any]:
    """The file at its path in the image as a layer that is in the registry; its descriptor."""
    size = file.stat().st_size

    def pieces(heard: Callable[[int], None]) -> Iterator[bytes]:
        return single_file(name, size, _read(file, heard))

    hashed = hashlib.sha256()
    whole = 0
    for piece in pieces(lambda _count: to.pause(0)):
        hashed.update(piece)
        whole += len(piece)
    digest = f"sha256:{hashed.hexdigest()}"
    if not to.has(digest):
        _send(to, digest, registry.Body(whole, lambda: pieces(told.sending)), told)
        told.say(f"{Path(name).name}: sent, {size / 1e9:.2f} GB")
    else:
        told.there(size)
        told.say(f"{Path(name).name}: there already")
    return {"mediaType": LAYER, "digest": digest, "size": whole}


def tag(
    to: registry.Registry, layers: Sequence[Mapping[str, Any]], annotations: Mapping[str, str], told: Told, *, by: str
) -> str:
    """Make an image of such layers, which are there, and give it the reference's tag; its digest."""
    diffs = [layer["digest"] for layer in layers]  # the layers are not compressed
    whole = manifest.made(diffs, layers, annotations, by=by)
    digest = manifest.digest(whole.config)
    if not to.has(digest):
        _send(to, digest, registry.Body(len(whole.config), lambda: iter([whole.config])), told)
    to.tag(whole.manifest)
    return manifest.digest(whole.manifest)


def single_file(name: str, size: int, pieces: Iterator[bytes]) -> Iterator[bytes]:
    """A tar with one file, piece by piece: the same bytes for the same file, whoever makes it and when."""
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o644
    yield member.tobuf(tarfile.GNU_FORMAT)
    yield from pieces
    yield bytes(padding(size))


def padding(size: int) -> int:
    """Zeros after a file of this size: up to a full block, and two more blocks that end the archive."""
    return -size % tarfile.BLOCKSIZE + 2 * tarfile.BLOCKSIZE


def _send(to: registry.Registry, digest: str, body: registry.Body, told: Told) -> None:
    pause = 1.0
    for number in range(_TRIES):
        try:
            to.upload(digest, body)
        except errors.Away as error:
            if number + 1 == _TRIES:
                raise
            told.say(f"{error}; trying again in {pause:.0f} s")
            to.pause(pause)
            pause *= 2
        else:
            return


def _read(file: Path, told: Callable[[int], None]) -> Iterator[bytes]:
    with file.open("rb") as source:
        while piece := source.read(registry.SENT):
            yield piece
            told(len(piece))
