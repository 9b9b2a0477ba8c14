"""Brings the base model's files to the disk, from the hub or an image: `weights`, in this image's errors."""

from collections.abc import Callable
from pathlib import Path

from artifacts.weights import check, files, hub
from artifacts.weights.config import Found
from artifacts.weights.errors import WeightsError
from tuning.config import TuningConfig
from tuning.errors import ModelFiles
from tuning.places import Places
from tuning.report import log

PATIENCE_SECONDS = 120.0


def download(
    config: TuningConfig,
    places: Places,
    *,
    patience: float = PATIENCE_SECONDS,
    tell: Callable[[str], None] = log.info,
) -> Path:
    """The folder with the model's files, all of them; `tell` hears how much has come."""
    model = config.model
    try:
        if places.model:
            return hub.complete(model.what, places.model)
        return files.fetch(model, places.scratch, places.pull_auth, tell, models=places.models, patience=patience)
    except WeightsError as error:
        raise ModelFiles(error) from error


def look(config: TuningConfig, places: Places) -> Found:
    """What can be known of the model before a GPU is bought."""
    try:
        return check.check(config.model, places.pull_auth)
    except WeightsError as error:
        raise ModelFiles(error) from error
