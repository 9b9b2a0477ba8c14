"""What can be known of a model before a GPU is bought: may it be had, which commit or digest it is, how large it is.

Needs neither torch nor the hub's client: it runs in the operator's image, in the user's namespace.
"""

import tempfile
from pathlib import Path
from typing import Any

import presets
from artifacts import unpack
from artifacts.weights import errors, hub, image
from artifacts.weights.config import Found, Model

_SILENCE_SECONDS = 10.0
"""How long a registry may say nothing: a user waits for the answer."""

_LEAST = 8
"""Weights of 16 bits hardly get smaller than two bits each, however they are quantised."""


def check(model: Model, auth: Path, *, most: int = unpack.LOOK_STORED) -> Found:
    """Raise why the model cannot be had; else what it is now. An image of at most so many bytes is looked into."""
    return _of_image(model, auth, most) if model.image else _of_hub(model)


def silent(model: Model, late: str) -> errors.WeightsError:
    """What to raise where nobody has answered in time; `late` says so."""
    if model.image:
        return errors.RegistryUnavailable(f"{model.field}.presetOptions.image: {model.image} {late}; it is asked again")
    return errors.HubUnavailable(f"{model.what}: the hub {late}; it is asked again")


def _of_hub(model: Model) -> Found:
    with hub.Hub() as asked:
        if model.known:
            asked.may_read(model)
            return Found(pinned=_commit(model, asked))
        pinned = model.model_copy(update={"revision": _commit(model, asked)})
        weights = asked.weights_bytes(pinned)
        return Found(pinned=pinned.revision, bytes=weights, preset=_preset(pinned, asked.config(pinned), weights))


def _commit(model: Model, asked: hub.Hub) -> str:
    found = asked.commit(model)
    if len(found) != hub.COMMIT or not all(digit in "0123456789abcdef" for digit in found):
        raise errors.HubUnavailable(f"{model.what}: the hub names no commit but {found[:60]!r}; it is asked again")
    return found


def _of_image(model: Model, auth: Path, most: int) -> Found:
    with image.opened(model, auth, silence=_SILENCE_SECONDS) as source, tempfile.TemporaryDirectory() as folder:
        found = image.inspect(source)
        looked = image.look(source, found, Path(folder), most=most)
        if model.known:
            if not looked:
                _weigh(model, image.weights_bytes(found))
            return Found(pinned=found.digest, bytes=image.weights_bytes(found))
        settings = image.model_config(source, found, Path(folder))
    preset = _preset(model, settings or _config(model), image.weights_bytes(found))
    return Found(pinned=found.digest, bytes=image.weights_bytes(found), preset=preset)


def _weigh(model: Model, weights: int) -> None:
    """Raise where even weights of two bits each would be more than all that is in the image."""
    needed = presets.preset(model.id).weights_gib * 2**30
    if weights < needed / _LEAST:
        raise errors.ModelUnusable(
            f"{model.field}.presetOptions.image: {model.image} has {weights / 1e9:.1f} GB and cannot hold the weights"
            f" of {model.id}, which have {needed / 1e9:.1f} GB; make one that does with `kaito-hera model push`"
        )


def _config(model: Model) -> dict[str, Any]:
    """Of an image that does not say where its config.json is, the hub may know more than its name."""
    with hub.Hub() as asked:
        return asked.config(model)


def _preset(model: Model, settings: dict[str, Any], weights: int) -> presets.Preset:
    try:
        return presets.from_hub(model.id, None, settings, weights)
    except presets.UnservableError as error:
        raise errors.ModelUnusable(f"{model.field}.name: {error}") from error
