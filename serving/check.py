"""`--check`: whether model and adapters can be had, asked from the user's namespace before a GPU is bought.

Runs in the operator's image: pydantic, requests and skopeo, no torch and no ray. Everything is asked at once, and the
whole is bounded: a user waits for the answer. A volume is looked into where it is mounted.
"""

import sys
from concurrent.futures import Future
from pathlib import Path
from typing import TypeVar

import pydantic

from artifacts import looks
from artifacts.weights import check as weights
from artifacts.weights.config import Found, Model
from artifacts.weights.errors import WeightsError
from serving import errors, folders, images, settings
from serving.config import ADAPTERS_FILE, Adapter, Adapters, Checked, Exit, ServingConfig

_T = TypeVar("_T")


def check(config_file: Path) -> Exit:
    """Ask for model and adapters; the first failure in the file's order is the termination message."""
    surroundings = settings.read()
    try:
        config, adapters = _read(config_file)
        model, found = _ask(config, adapters, surroundings)
    except errors.Fatal as error:
        failure = error.failure()
        sys.stdout.write(f"{failure.reason}: {failure.message}\n")
        errors.leave(failure, surroundings.termination_log)
        return error.exit
    for adapter, manifest in zip(adapters, found, strict=True):
        sys.stdout.write(f"adapter {adapter.name}: {manifest}\n")
    if model:
        sys.stdout.write(f"model {config.model.id}: {model.pinned}\n")
        errors.leave_text(Checked(model=model).model_dump_json(), surroundings.termination_log)
    return Exit.DONE


def _ask(
    config: ServingConfig, adapters: tuple[Adapter, ...], surroundings: settings.Settings
) -> tuple[Found | None, list[str | None]]:
    """What there is of the model, if it is asked for, and of each adapter.

    Terminal errors come before those that may pass: waiting for a registry does not mend a wrong name.
    """
    asked, failed = looks.Looks(surroundings.check_seconds), list[errors.Fatal]()

    def found(look: Future[_T], too_late: errors.Fatal) -> _T | None:
        try:
            return asked.found(look, too_late)
        except errors.Fatal as error:
            failed.append(error)
            return None

    model = asked.begin(_model, config.model, surroundings) if config.model.ask else None
    named = [(_field(config, number, adapter), adapter) for number, adapter in enumerate(adapters)]
    begun = [asked.begin(_check, *each, surroundings) for each in named]
    there = found(model, errors.ModelFiles(weights.silent(config.model, asked.late))) if model else None
    silent = [_silent(adapter, f"{field}: {adapter.source} {asked.late}") for field, adapter in named]
    told = [found(look, too_late) for look, too_late in zip(begun, silent, strict=True)]
    for error in sorted(failed, key=lambda error: error.retryable):
        raise error
    return there, told


def _silent(adapter: Adapter, text: str) -> errors.Fatal:
    return errors.NodeTrouble(text) if adapter.volume else errors.RegistryUnavailable(text)


def _model(model: Model, surroundings: settings.Settings) -> Found:
    try:
        return weights.check(model, surroundings.registry_auth)
    except WeightsError as error:
        raise errors.ModelFiles(error) from error


def _read(config_file: Path) -> tuple[ServingConfig, tuple[Adapter, ...]]:
    file = config_file.with_name(ADAPTERS_FILE)
    try:
        config = ServingConfig.model_validate_json(config_file.read_bytes())
        return config, Adapters.validate_json(file.read_bytes()) if file.exists() else ()
    except (OSError, pydantic.ValidationError) as error:
        raise errors.BadConfig(f"{config_file} or {file.name} beside it cannot be used: {error}") from error


def _field(config: ServingConfig, number: int, adapter: Adapter) -> str:
    """What of the Workspace names the adapter: the one that it tuned has its own name."""
    tuned = adapter.name == config.workspace.rpartition("/")[2]
    return ("tuning.output" if tuned else f"inference.adapters[{number}].source") + (
        ".volumeSource" if adapter.volume else ".image"
    )


def _check(field: str, adapter: Adapter, surroundings: settings.Settings) -> str:
    if adapter.volume:
        return _look(field, adapter)
    try:
        manifest = images.inspect(
            adapter.image, authfile=surroundings.registry_auth, seconds=surroundings.check_seconds
        )
    except errors.Fatal as error:
        raise type(error)(f"{field}: {error}") from error
    return f"{manifest.pinned}, {len(manifest.layers)} layers, {sum(layer.size for layer in manifest.layers):,} bytes"


def _look(field: str, adapter: Adapter) -> str:
    if not Path(adapter.folder).is_dir():
        return f"{adapter.volume} is not mounted here: the server looks into it"
    try:
        return f"{adapter.volume}, {folders.read(adapter).digest}"
    except errors.Fatal as error:
        raise type(error)(f"{field}: {error}") from error
