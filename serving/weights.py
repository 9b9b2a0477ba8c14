"""The model's files, from the hub or an image, before anything else starts: `weights`, in this image's errors."""

import logging
import shutil
from pathlib import Path

from artifacts.weights import files, hub, layers, shared
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
    # A process that was killed leaves its locks, which some shared file systems keep for ever; nobody else is here.
    shutil.rmtree(place / "hub" / ".locks", ignore_errors=True)
    return files.fetch(model, place, registry_auth, log.info)
