"""The model's files, from the hub or an image, before anything else starts: `weights`, in this image's errors."""

import logging
import shutil
import time
from pathlib import Path

from artifacts.weights import hub, image, shared
from artifacts.weights.config import Model
from artifacts.weights.errors import WeightsError
from serving import errors

log = logging.getLogger("serving.weights")


def fetch(model: Model, scratch: Path, registry_auth: Path, cache: Path | None = None) -> Path:
    """The folder with the model's files; raises ModelFiles.

    `cache` is a folder that outlives this machine and may be others' too; a model that is not pinned is not kept there.
    """
    began = time.monotonic()
    try:
        if cache and (model.image or len(model.revision) == hub.COMMIT):
            folder = shared.fetch(model, cache, lambda place: _fetch(model, place, registry_auth))
        else:
            folder = _fetch(model, scratch, registry_auth)
    except WeightsError as error:
        raise errors.ModelFiles(error) from error
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors")) / 1e9
    log.info("weights of %s: %.2f GB in %.1f s", model.id, size, time.monotonic() - began)
    return folder


def _fetch(model: Model, place: Path, registry_auth: Path) -> Path:
    if model.image:
        return image.fetch(model, place / "model", registry_auth)
    # A process that was killed leaves its locks, which some shared file systems keep for ever; nobody else is here.
    shutil.rmtree(place / "hub" / ".locks", ignore_errors=True)
    return hub.fetch(model, place / "hub")
