"""Images that hold a model: what one is, found out before a GPU is bought, and its files on disk.

Layers are fetched side by side, a few ahead of the one that is unpacked, and go when they are: the disk never holds the
model twice. A download that was cut, or a container that was killed, goes on where it was.
"""

import concurrent.futures
import json
import logging
import platform
import shutil
import tarfile
import time
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from artifacts.weights import config, errors, layers, registry
from artifacts.weights.config import Model

log = logging.getLogger("weights")

FILE = "sh.kaito.hera.file"
"""Annotation of a layer that is one file of ours: its name."""
MODEL = "sh.kaito.hera.model"
REVISION = "sh.kaito.hera.revision"

LOOK_BYTES = 64 * 2**20
"""An image with more is fetched on the node alone: a look has less than a minute and little disk."""

_AHEAD = 4
_MAX_LAYERS = 1000
_TITLE = "org.opencontainers.image.title"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_CONFIG_BYTES = 8 << 20


class Layer(NamedTuple):
    """One layer as the manifest lists it."""

    digest: str
    size: int
    file: str
    """The one file in it, where the manifest says so."""
    title: str
    """The file that it is, where it is no archive."""


class Image(NamedTuple):
    """An image as its registry describes it."""

    digest: str
    layers: tuple[Layer, ...]

    @property
    def weights_bytes(self) -> int:
        """Of its safetensors files, where the manifest names them; else of all its layers."""
        named = [layer.size for layer in self.layers if (layer.file or layer.title).endswith(".safetensors")]
        return sum(named) or sum(layer.size for layer in self.layers)


def inspect(source: registry.Registry) -> Image:
    """Ask the registry what the image is."""
    body, digest = source.manifest()
    manifest = _json(body, source)
    try:
        if "manifests" in manifest:
            body, digest = source.manifest(_chosen(manifest, source))
            manifest = _json(body, source)
        found = tuple(_layer(layer, source) for layer in manifest["layers"])
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise _unusable(source, "has a manifest without readable layers") from error
    if not 0 < len(found) <= _MAX_LAYERS:
        raise _unusable(source, f"has {len(found)} layers; 1 to {_MAX_LAYERS} are allowed")
    return Image(digest, found)


def model_config(source: registry.Registry, image: Image, scratch: Path) -> dict[str, Any] | None:
    """The config.json of an image that says in which layer it is."""
    for layer in image.layers:
        if "config.json" in {layer.file, layer.title} and layer.size <= _CONFIG_BYTES:
            file = scratch / "config"
            source.blob(layer.digest, layer.size, file)
            if layer.title:
                return _json(file.read_bytes(), source)
            return _json(_first_file(file, source), source)
    return None


def _first_file(layer: Path, source: registry.Registry) -> bytes:
    try:
        with tarfile.open(layer, mode="r:") as archive:
            member = archive.next()
            content = member and archive.extractfile(member)
            return content.read(_CONFIG_BYTES) if content else b""
    except tarfile.TarError as error:
        raise _unusable(source, f"has a layer that is no archive ({error})") from error


def opened(model: Model, auth: Path, **options: Any) -> registry.Registry:
    """The registry of the model's image."""
    return registry.Registry(model.image, auth, field=f"{model.field}.presetOptions.image", **options)


def fetch(model: Model, folder: Path, auth: Path) -> Path:
    """The folder with the files of the model's image, all of them."""
    began = time.monotonic()
    with opened(model, auth) as source:
        image = inspect(source)
        found = _stored(source, image, folder)
    log.info("%s at %s: %.1f s", source.reference, image.digest, time.monotonic() - began)
    return found


def look(source: registry.Registry, image: Image, scratch: Path, *, most: int) -> bool:
    """Whether what is there is known to be a model's files, by fetching at most so many bytes.

    False where that is seen on the node only. Raises ModelUnusable where it is none.
    """
    if sum(layer.size for layer in image.layers) <= most:
        _stored(source, image, scratch)
        return True
    names = {PurePosixPath(layer.file or layer.title).name for layer in image.layers}
    if "" in names:
        return False
    if "config.json" not in names or not any(name.endswith(".safetensors") for name in names):
        raise _unusable(
            source, f"has no config.json with .safetensors beside it, it has {', '.join(sorted(names)[:5])}"
        )
    return True


def _stored(source: registry.Registry, image: Image, folder: Path) -> Path:
    try:
        return _unpacked(source, image, folder / image.digest.replace(":", "-"))
    except OSError as error:
        raise errors.StorageTrouble(f"{source.field}: {source.reference} could not be stored: {error}") from error


def _unpacked(source: registry.Registry, image: Image, own: Path) -> Path:
    own.mkdir(parents=True, exist_ok=True)
    done = own / ".done"
    first = int(done.read_text()) if done.exists() else 0
    files = layers.Files(own, f"{source.field}: {source.reference}")
    _see_room(source, image.layers, first, own)
    with concurrent.futures.ThreadPoolExecutor(_AHEAD) as pool:
        under_way: dict[int, concurrent.futures.Future[None]] = {}
        try:
            for number in range(first, len(image.layers)):
                for ahead in range(number, min(number + _AHEAD, len(image.layers))):
                    if ahead not in under_way:
                        under_way[ahead] = pool.submit(_download, source, image.layers[ahead], own / f"blob-{ahead}")
                under_way[number].result()
                blob = own / f"blob-{number}"
                files.add(blob, title=image.layers[number].title)
                blob.unlink(missing_ok=True)
                _note(done, number + 1)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return files.model()


def _download(source: registry.Registry, layer: Layer, file: Path) -> None:
    if not file.exists():
        source.blob(layer.digest, layer.size, file)


def _note(done: Path, count: int) -> None:
    """Renamed, since a full disk or a kill may leave a file that was written without its number."""
    part = done.with_name(f"{done.name}.part")
    part.write_text(str(count))
    part.replace(done)


def _see_room(source: registry.Registry, layers: tuple[Layer, ...], first: int, folder: Path) -> None:
    """Raise unless the disk takes what is to be fetched, and the largest layer's files beside the layer itself."""
    sizes = {number: layer.size for number, layer in enumerate(layers) if number >= first}
    needed = sum(sizes.values()) - sum(_there(folder, number) for number in sizes) + max(sizes.values(), default=0)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise errors.StorageTrouble(
            f"{source.field}: {source.reference} needs {needed / 1e9:.1f} GB of disk, {folder} has {free / 1e9:.1f} GB"
            " free; give the node a larger disk"
        )


def _there(folder: Path, number: int) -> int:
    """Bytes of the layer that a run before this one has fetched."""
    blob = folder / f"blob-{number}"
    files = (blob, blob.with_name(f"{blob.name}.part"))
    return sum(file.stat().st_size for file in files if file.exists())


def _layer(entry: dict[str, Any], source: registry.Registry) -> Layer:
    digest, size, kind = str(entry["digest"]), int(entry["size"]), str(entry.get("mediaType", ""))
    if not registry.is_digest(digest) or size < 0:
        raise ValueError(digest)
    told = entry.get("annotations") or {}
    is_file = "tar" not in kind and _TITLE in told
    if kind.endswith("zstd") and not is_file:
        raise _unusable(source, "has layers compressed with zstd, which are not read; build it with plain or gzip ones")
    return Layer(digest, size, str(told.get(FILE, "")), str(told[_TITLE]) if is_file else "")


def _chosen(index: dict[str, Any], source: registry.Registry) -> str:
    """The entry for this machine, or the first: a model's files are the same everywhere."""
    machine = platform.machine()
    wanted = {"os": "linux", "architecture": _ARCHITECTURES.get(machine, machine)}
    entries = [entry for entry in index["manifests"] if isinstance(entry, dict)]
    for entry in sorted(entries, key=lambda entry: not wanted.items() <= (entry.get("platform") or {}).items()):
        if (entry.get("platform") or {}).get("os") != "unknown" and registry.is_digest(str(entry.get("digest"))):
            return str(entry["digest"])
    raise _unusable(source, "is an index without images")


def _json(body: bytes, source: registry.Registry) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise _unusable(source, "has a manifest or a config.json that is no JSON object")
    return found


def _unusable(source: registry.Registry, why: str) -> errors.ModelUnusable:
    return errors.ModelUnusable(f"{source.field}: {source.reference} {why}; make one with `kaito-hera model push`")


def local(folder: Path) -> dict[str, Path]:
    """The files of a folder that belong into an image."""
    return {path.name: path for path in sorted(folder.iterdir()) if path.is_file() and config.is_wanted(path.name)}
