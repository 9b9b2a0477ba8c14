"""The model's files, from the hub or an image, before anything else starts: `weights`, in this image's errors."""

import logging
import time
from pathlib import Path

from artifacts.weights import hub, image
from artifacts.weights.config import Model
from artifacts.weights.errors import WeightsError
from serving import errors

log = logging.getLogger("serving.weights")


def fetch(model: Model, scratch: Path, registry_auth: Path) -> Path:
    """The folder with the model's files; raises ModelFiles."""
    began = time.monotonic()
    try:
        if model.image:
            folder = image.fetch(model, scratch / "model", registry_auth)
        else:
            folder = hub.fetch(model, scratch / "hub")
    except WeightsError as error:
        raise errors.ModelFiles(error) from error
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors")) / 1e9
    log.info("weights of %s: %.2f GB in %.1f s", model.id, size, time.monotonic() - began)
    return folder
