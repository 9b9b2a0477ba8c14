"""Images that hold a model: what one is, found out before a GPU is bought, and its files on disk.

Layers are fetched side by side, a few ahead of the one that is unpacked, and go when they are: the disk never holds the
model twice. A download that was cut, or a container that was killed, goes on where it was.
"""

import concurrent.futures
import contextlib
import logging
import shutil
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from artifacts import errors, manifest, registry, unpack
from artifacts.manifest import Layer, Manifest
from artifacts.weights import config, layers
from artifacts.weights import errors as weights
from artifacts.weights.config import Model

log = logging.getLogger("weights")

FILE = "sh.kaito.hera.file"
"""Annotation of a layer that is one file of ours: its name."""
MODEL = "sh.kaito.hera.model"
REVISION = "sh.kaito.hera.revision"

_AHEAD = 4
_CONFIG_BYTES = 8 << 20


def inspect(source: registry.Registry) -> Manifest:
    """Ask the registry what the image is."""
    return manifest.read(str(source.reference), source.manifest)


def weights_bytes(image: Manifest) -> int:
    """Of its safetensors files, where the manifest names them; else of all its layers."""
    return sum(layer.size for layer in image.layers if name(layer).endswith(".safetensors")) or image.bytes


def name(layer: Layer) -> str:
    """Of the one file that it has or is, where the manifest says so."""
    return PurePosixPath(str(layer.annotations.get(FILE, layer.title))).name


def model_config(source: registry.Registry, image: Manifest, scratch: Path) -> dict[str, Any] | None:
    """The config.json of an image that says in which layer it is."""
    for layer in image.layers:
        if name(layer) == "config.json" and layer.size <= _CONFIG_BYTES:
            blob = scratch / "config"
            source.blob(layer.digest, layer.size, blob)
            layers.Files(scratch / "config-files", str(source.reference), limit=2 * _CONFIG_BYTES).add(blob, layer)
            for file in (scratch / "config-files").rglob("config.json"):
                return manifest.parsed(str(source.reference), file.read_bytes())
    return None


@contextlib.contextmanager
def opened(model: Model, auth: Path, **options: Any) -> Iterator[registry.Registry]:
    """The registry of the model's image; errors within become those of `weights`."""
    field = f"{model.field}.presetOptions.image"
    way_in = f"name a Secret with a password for it in {field}PullSecrets"
    with weights.of_image(field, way_in), registry.of(model.image, auth, **options) as source:
        yield source


def fetch(model: Model, folder: Path, auth: Path) -> Path:
    """The folder with the files of the model's image, all of them."""
    began = time.monotonic()
    with opened(model, auth) as source:
        image = inspect(source)
        found = _stored(source, image, folder, layers.limit(image.layers))
    log.info("%s at %s: %.1f s", source.reference, image.digest, time.monotonic() - began)
    return found


def look(
    source: registry.Registry, image: Manifest, scratch: Path, *, most: int, room: int = unpack.LOOK_UNPACKED
) -> bool:
    """Whether what is there is known to be a model's files, by fetching at most so many bytes, with `room` for files.

    False where that is seen on the node only. Raises Unusable where it is none.
    """
    if image.bytes <= most:
        try:
            _stored(source, image, scratch, room)
        except errors.TooLarge as error:
            log.info("%s; it is looked into on the node", error)
            return False
        return True
    names = {name(layer) for layer in image.layers}
    if "" in names:
        return False
    if "config.json" not in names or not any(name.endswith(".safetensors") for name in names):
        listed = ", ".join(sorted(names)[:5])
        raise errors.Unusable(f"{source.reference} has no config.json with .safetensors beside it, it has {listed}")
    return True


def _stored(source: registry.Registry, image: Manifest, folder: Path, limit: int) -> Path:
    try:
        return _unpacked(source, image, folder / image.digest.replace(":", "-"), limit)
    except OSError as error:
        raise errors.MachineTrouble(f"{source.reference} could not be stored: {error}") from error


def _unpacked(source: registry.Registry, image: Manifest, own: Path, limit: int) -> Path:
    own.mkdir(parents=True, exist_ok=True)
    done = own / ".done"
    first = int(done.read_text()) if done.exists() else 0
    files = layers.Files(own / "files", str(source.reference), limit=limit)
    _see_room(source, image.layers, first, own)
    with concurrent.futures.ThreadPoolExecutor(_AHEAD) as pool:
        under_way: dict[int, concurrent.futures.Future[None]] = {}
        try:
            for number in range(first, len(image.layers)):
                for ahead in range(number, min(number + _AHEAD, len(image.layers))):
                    if ahead not in under_way:
                        under_way[ahead] = pool.submit(_download, source, image.layers[ahead], own / f"blob-{ahead}")
                _await(under_way, number)
                blob = own / f"blob-{number}"
                files.add(blob, image.layers[number])
                blob.unlink(missing_ok=True)
                _note(done, number + 1)
        except BaseException:
            source.cut()  # or the pool would wait for what nobody wants any more
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return files.model()


def _await(under_way: dict[int, concurrent.futures.Future[None]], number: int) -> None:
    """Wait for one; raise what any of them raised."""
    while not under_way[number].done():
        waiting = [future for future in under_way.values() if not future.done()]
        for ended in concurrent.futures.wait(waiting, return_when=concurrent.futures.FIRST_COMPLETED).done:
            ended.result()
    under_way[number].result()


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
        raise errors.MachineTrouble(
            f"{source.reference} needs {needed / 1e9:.1f} GB of disk, {folder} has {free / 1e9:.1f} GB free; give the"
            " node a larger disk"
        )


def _there(folder: Path, number: int) -> int:
    """Bytes of the layer that a run before this one has fetched."""
    blob = folder / f"blob-{number}"
    files = (blob, blob.with_name(f"{blob.name}.part"))
    return sum(file.stat().st_size for file in files if file.exists())


def local(folder: Path) -> dict[str, Path]:
    """The files of a folder that belong into an image."""
    return {path.name: path for path in sorted(folder.iterdir()) if path.is_file() and config.is_wanted(path.name)}
