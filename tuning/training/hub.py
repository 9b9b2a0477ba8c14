"""Brings the base model's files to the disk, from the hub or an image: `weights`, in this image's errors."""

from pathlib import Path

from artifacts.weights import check, hub, image
from artifacts.weights.config import Found
from artifacts.weights.errors import WeightsError
from tuning.config import TuningConfig
from tuning.errors import ModelFiles
from tuning.places import Places

PATIENCE_SECONDS = 120.0


def download(config: TuningConfig, places: Places, *, patience: float = PATIENCE_SECONDS) -> Path:
    """The folder with the model's files, all of them."""
    try:
        if places.model:
            return hub.complete(config.model, places.model)
        if config.model.image:
            return image.fetch(config.model, places.scratch / "model", places.pull_auth)
        return hub.fetch(config.model, places.models or places.scratch / "hub", patience=patience)
    except WeightsError as error:
        raise ModelFiles(error) from error


def look(config: TuningConfig, places: Places) -> Found:
    """What can be known of the model before a GPU is bought."""
    try:
        return check.check(config.model, places.pull_auth)
    except WeightsError as error:
        raise ModelFiles(error) from error
