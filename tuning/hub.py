"""Brings the base model's files from the hub to the disk; HF_ENDPOINT says which hub, HF_TOKEN who asks."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

from tuning.config import TuningConfig
from tuning.errors import ModelUnreachable, ModelUnusable, NodeTrouble, TuningError, explain
from tuning.report import log

PATIENCE_SECONDS = 120.0

WANTED = ["*.json", "*.safetensors", "*.jinja", "*.txt", "*.model"]
UNWANTED = ["original/*", "consolidated*", "onnx/*", "*.onnx.json"]
"""The same weights again, in other layouts."""

_REFUSALS = {
    "GatedRepoError": "is gated; accept its licence and give a token that may read it (HF_TOKEN of the access secret)",
    "RepositoryNotFoundError": "is not on the hub, or needs a token (HF_TOKEN of the access secret)",
    "RevisionNotFoundError": "has no such revision on the hub; correct the preset",
    "DisabledRepoError": "is disabled on the hub; choose another preset",
}


def download(config: TuningConfig, cache: Path, *, patience: float = PATIENCE_SECONDS) -> Path:
    """The folder with the model's files, all of them."""
    import huggingface_hub  # noqa: PLC0415 -- not in the operator's image

    name = _name(config)
    since, pause = time.monotonic(), 1.0
    while True:
        try:
            folder = Path(
                huggingface_hub.snapshot_download(
                    config.model.id,
                    revision=config.model.revision,
                    endpoint=os.environ.get("HF_ENDPOINT"),
                    cache_dir=cache,
                    allow_patterns=WANTED,
                    ignore_patterns=UNWANTED,
                )
            )
        except Exception as error:
            failure = _explain(name, error)
            if not isinstance(failure, ModelUnreachable) or time.monotonic() + pause - since > patience:
                raise failure from error
            log.warning("%s; trying again in %.0f s", failure, pause)
            time.sleep(pause)
            pause = min(2 * pause, 15)
        else:
            if not any(folder.glob("*.safetensors")):
                raise ModelUnusable(f"{name} has no safetensors weights; other formats may run code and are not loaded")
            return folder


def _name(config: TuningConfig) -> str:
    return f"tuning.preset {config.preset}: model {config.model.id} at {config.model.revision}"


def _explain(name: str, error: Exception) -> Exception:
    for cause in _causes(error):
        if isinstance(cause, TuningError):  # an eviction
            return cause
        if (remedy := _REFUSALS.get(type(cause).__name__)) is not None:
            return ModelUnusable(f"{name} {remedy}")
        status = getattr(getattr(cause, "response", None), "status_code", None)
        if status in (401, 403, 404):
            return ModelUnusable(
                f"{name}: the hub answers {status}; correct the preset or the access secret's HF_TOKEN"
            )
        if isinstance(explained := explain(cause), NodeTrouble):
            return explained
    return ModelUnreachable(f"{name} cannot be downloaded: {type(error).__name__}: {str(error)[:400]}")


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__
