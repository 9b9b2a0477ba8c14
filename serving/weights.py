"""The model's files, from the hub or an image, before anything else starts: `weights`, in this image's errors."""

import contextlib
import logging
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from artifacts.weights import hub, image, layers, shared
from artifacts.weights.config import Model
from artifacts.weights.errors import StorageTrouble, WeightsError, of_image
from serving import errors

log = logging.getLogger("serving.weights")


def fetch(model: Model, scratch: Path, registry_auth: Path, cache: Path | None = None) -> Path:
    """The folder with the model's files; raises ModelFiles.

    `cache` is a folder that outlives this machine and may be others' too; a model that is not pinned is not kept there,
    nor one that finds no room: a server waits for nobody who would tidy up.
    """
    try:
        if cache and (model.image or len(model.revision) == hub.COMMIT):
            return _shared(model, scratch, registry_auth, cache)
        return _fetch(model, scratch, registry_auth)
    except WeightsError as error:
        raise errors.ModelFiles(error) from error


def _shared(model: Model, scratch: Path, registry_auth: Path, cache: Path) -> Path:
    try:
        return shared.fetch(model, cache, lambda place: _fetch(model, place, registry_auth))
    except StorageTrouble as error:
        log.warning(
            "%s; it is fetched onto this machine's own disk instead. The claim of the annotation kaito.sh/weights-cache"
            " lies at %s: make it larger, or remove what no Workspace serves any more: %s",
            *(error, cache, "; ".join(shared.kept(cache)) or "no model is on it"),
        )
        return _fetch(model, scratch, registry_auth)


def mounted(model: Model, folder: Path) -> Path:
    """The folder with the model's files in its image, which the kubelet has mounted; raises ModelFiles."""
    try:
        with of_image(f"{model.field}.presetOptions.image", ""):
            return layers.find(folder, model.image)
    except WeightsError as error:
        raise errors.ModelFiles(error) from error


def _fetch(model: Model, place: Path, registry_auth: Path) -> Path:
    with telling(place):
        if model.image:
            return image.fetch(model, place / "model", registry_auth)
        # A process that was killed leaves its locks, which some shared file systems keep for ever; nobody else is here.
        shutil.rmtree(place / "hub" / ".locks", ignore_errors=True)
        return hub.fetch(model, place / "hub")


@contextlib.contextmanager
def telling(place: Path, every: float = 15.0) -> Iterator[None]:
    """Say in the log how much has come, and at what rate, so often and in the end."""
    over = threading.Event()
    began, found = time.monotonic(), _written(place)

    def tell() -> None:
        there = _written(place)
        while not over.wait(every):
            there, before = _written(place), there
            log.info("fetching: %.0f MB so far, %.1f MB/s", there / 1e6, (there - before) / every / 1e6)

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    come, seconds = (_written(place) - found) / 1e6, time.monotonic() - began
    if come > 0:
        log.info("fetched %.0f MB in %.1f s, %.1f MB/s", come, seconds, come / seconds)
    else:
        log.info("found in %s, nothing was fetched", place)


def _written(place: Path) -> int:
    """Bytes on the disk: what is fetched in parts may be reserved before it comes."""
    total = 0
    for file in place.rglob("*"):
        with contextlib.suppress(OSError):  # renamed meanwhile
            total += 0 if file.is_symlink() else file.stat().st_blocks * 512
    return total
