"""`--check`: whether the adapter images can be had, asked from the user's namespace before a GPU is bought.

Runs in the operator's image: pydantic and skopeo, no torch and no ray. All images are asked at once and the answer
comes in less than 15 seconds, also from a registry that does not answer.
"""

import concurrent.futures
import sys
from pathlib import Path

import pydantic

from serving import errors, images, settings
from serving.config import ADAPTERS_FILE, Adapter, Adapters, Exit, ServingConfig


def check(config_file: Path) -> Exit:
    """Ask for every adapter; the first failure in the file's order is the termination message."""
    surroundings = settings.read()
    try:
        adapters = _read(config_file)
        with concurrent.futures.ThreadPoolExecutor(max_workers=64) as pool:
            asked = [pool.submit(_check, number, adapter, surroundings) for number, adapter in enumerate(adapters)]
            found = [future.exception() or future.result() for future in asked]
        _raise_first(found)
    except errors.Fatal as error:
        failure = error.failure()
        sys.stdout.write(f"{failure.reason}: {failure.message}\n")
        errors.leave(failure, surroundings.termination_log)
        return error.exit
    for adapter, manifest in zip(adapters, found, strict=True):
        sys.stdout.write(f"adapter {adapter.name}: {manifest}\n")
    return Exit.DONE


def _read(config_file: Path) -> tuple[Adapter, ...]:
    file = config_file.with_name(ADAPTERS_FILE)
    try:
        ServingConfig.model_validate_json(config_file.read_bytes())
        return Adapters.validate_json(file.read_bytes()) if file.exists() else ()
    except (OSError, pydantic.ValidationError) as error:
        raise errors.BadConfig(f"{config_file} or {file.name} beside it cannot be used: {error}") from error


def _check(number: int, adapter: Adapter, surroundings: settings.Settings) -> str:
    field = f"inference.adapters[{number}].source.image"
    try:
        manifest = images.inspect(
            adapter.image, authfile=surroundings.registry_auth, seconds=surroundings.check_seconds
        )
    except errors.Fatal as error:
        raise type(error)(f"{field}: {error}") from error
    return f"{manifest.pinned}, {len(manifest.layers)} layers, {sum(layer.size for layer in manifest.layers):,} bytes"


def _raise_first(found: list[str | BaseException]) -> None:
    """Terminal errors before those that may pass: waiting for a registry does not mend a wrong name."""
    failed = [each for each in found if isinstance(each, BaseException)]
    for error in sorted(failed, key=lambda error: getattr(error, "retryable", False)):
        raise error
