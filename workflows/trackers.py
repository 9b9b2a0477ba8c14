"""Experiment trackers of a tuning run: their credentials, from the Secret that an annotation names. Pure."""

from typing import Any

from kaito_hera.api import Workspace, annotations
from tuning.training_config import TrainingConfig

FIELD = f"metadata.annotations[{annotations.TRACKING}]"

KEYS = (
    "WANDB_API_KEY",
    "WANDB_BASE_URL",
    "WANDB_ENTITY",
    "WANDB_PROJECT",
    "MLFLOW_TRACKING_URI",
    "MLFLOW_TRACKING_TOKEN",
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_EXPERIMENT_NAME",
)
"""Of the Secret; all that a pod is given of it."""

_NEEDED = {"wandb": "WANDB_API_KEY", "mlflow": "MLFLOW_TRACKING_URI"}


def env(workspace: Workspace, training: TrainingConfig) -> tuple[dict[str, Any], ...]:
    """What the tuning pod's trackers read; a key that the Secret has not is left out."""
    found = {}
    if secret := _secret(workspace) if training.arguments.report_to else "":
        found = {key: {"secretKeyRef": {"name": secret, "key": key, "optional": True}} for key in KEYS}
    return tuple({"name": key, "valueFrom": source} for key, source in found.items())


def tokens(workspace: Workspace, training: TrainingConfig) -> tuple[tuple[str, str, str], ...]:
    """The keys that the Secret has to have: field, Secret and key."""
    secret = _secret(workspace)
    needed = [_NEEDED[name] for name in training.arguments.report_to if name in _NEEDED]
    return tuple((FIELD, secret, key) for key in needed if secret)


def warnings(workspace: Workspace, training: TrainingConfig) -> tuple[str, ...]:
    """What is asked of trackers and cannot be, though the adapter can."""
    said, told = [], training.arguments.report_to
    if needy := [name for name in told if name in _NEEDED and not _secret(workspace)]:
        keys = " and ".join(_NEEDED[name] for name in needy)
        said.append(
            f"TrainingArguments.report_to: nothing goes to {' and '.join(needy)} without a Secret; make one with {keys}"
            f" and name it in the annotation {annotations.TRACKING}"
        )
    if _secret(workspace) and not told:
        said.append(f"{FIELD}: has no effect, since TrainingArguments.report_to names no tracker")
    if "tensorboard" in told and workspace.tuning and not workspace.tuning.output.volume_source:
        said.append(
            "TrainingArguments.report_to: tensorboard's files lie beside the adapter, and tuning.output is an image;"
            " none are written"
        )
    return tuple(said)


def _secret(workspace: Workspace) -> str:
    return workspace.annotation(annotations.TRACKING)
