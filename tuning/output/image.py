"""Packs an adapter into an OCI image on disk: /data in a layer, the same bytes for the same files.

What tells of the adapter is a small layer of its own, since it tells how long that took too: a run that was repeated
has another card, and the same weights, which the registry has already.

KAITO's puller and ours read /data/adapter_config.json and /data/adapter_model.safetensors; more files are extra. It is
an image, not an artifact, since containerd and skopeo refuse artifacts where an image is expected.
"""

import gzip
import hashlib
import io
import shutil
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from artifacts import manifest

LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"

TAG = "adapter"
"""The image's name within the layout."""

GZIP_LEVEL = 1
"""Weights hardly shrink: level 9 takes three times as long for one per cent."""


class Image(NamedTuple):
    """An image in an OCI layout."""

    layout: Path
    digest: str


def write(
    layout: Path, files: Mapping[str, Path], annotations: Mapping[str, str], *, card: Mapping[str, Path] | None = None
) -> Image:
    """The image with the files and those of the card under /data, in a layout that is made anew."""
    shutil.rmtree(layout, ignore_errors=True)
    blobs = layout / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    layers = [_layer(part, blobs) for part in (files, card) if part]
    diffs = [diff for _, diff in layers]
    made = manifest.made(diffs, [layer for layer, _ in layers], annotations, by="kaito-hera tuning")
    for content in made:
        (blobs / manifest.digest(content).removeprefix("sha256:")).write_bytes(content)
    described = manifest.described(manifest.TYPE, made.manifest)
    named = described | {"annotations": {"org.opencontainers.image.ref.name": TAG}}
    (layout / "index.json").write_bytes(manifest.dumped({"schemaVersion": 2, "manifests": [named]}))
    (layout / "oci-layout").write_bytes(manifest.dumped({"imageLayoutVersion": "1.0.0"}))
    return Image(layout, described["digest"])


def _layer(files: Mapping[str, Path], blobs: Path) -> tuple[dict[str, Any], str]:
    """The layer's descriptor and the digest of its tar; nothing in it tells when or by whom it was made."""
    unnamed = blobs / "layer"
    with unnamed.open("wb") as file:
        packed = _Hashed(file)
        with gzip.GzipFile(filename="", mode="wb", fileobj=packed, mtime=0, compresslevel=GZIP_LEVEL) as compressed:
            plain = _Hashed(compressed)
            with tarfile.open(fileobj=plain, mode="w|", format=tarfile.USTAR_FORMAT) as tar:
                _add(tar, files)
    unnamed.rename(blobs / packed.digest.hexdigest())
    digest = f"sha256:{packed.digest.hexdigest()}"
    title = {"org.opencontainers.image.title": "layer.tar.gz"}  # as KAITO's pusher names it
    descriptor = {"mediaType": LAYER, "digest": digest, "size": packed.size, "annotations": title}
    return descriptor, f"sha256:{plain.digest.hexdigest()}"


def _add(tar: tarfile.TarFile, files: Mapping[str, Path]) -> None:
    folder = tarfile.TarInfo("data/")
    folder.type, folder.mode = tarfile.DIRTYPE, 0o755
    tar.addfile(folder)
    for name in sorted(files):
        member = tarfile.TarInfo(f"data/{name}")
        member.size, member.mode = files[name].stat().st_size, 0o644
        with files[name].open("rb") as content:
            tar.addfile(member, content)


class _Hashed(io.RawIOBase):
    """Passes bytes on and keeps their digest."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.digest = hashlib.sha256()
        self.size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._file.write(data)
        self.digest.update(data)
        self.size += len(data)
        return len(data)
