"""A model's files on disk, wherever they are to come from; how much has come is told meanwhile."""

import contextlib
from collections.abc import Callable
from pathlib import Path

from artifacts.weights import hub, image, pace
from artifacts.weights.config import Model
from artifacts.weights.errors import WeightsError


def fetch(
    model: Model,
    folder: Path,
    auth: Path,
    tell: Callable[[str], None],
    *,
    models: Path | None = None,
    patience: float = 0.0,
) -> Path:
    """The folder with all of the model's files, below `folder`; those of the hub below `models`, where it is given.

    A hub that sends nothing is asked for `patience` seconds.
    """
    if model.image:
        place = folder / "model"
        with pace.telling(place, tell, whole=lambda: size(model, auth)):
            return image.fetch(model, place, auth)
    cache = models or folder / "hub"
    with pace.telling(hub.place(model, cache), tell, whole=lambda: size(model, auth)):
        return hub.fetch(model, cache, patience=patience)


def size(model: Model, auth: Path) -> int:
    """So many bytes will come; 0 where nobody says so."""
    with contextlib.suppress(WeightsError, OSError):
        if model.image:
            with image.opened(model, auth) as source:
                return image.inspect(source).bytes
        with hub.Hub() as asked:
            return asked.weights_bytes(model)
    return 0
