"""What a tracker is told of a run: who it is, how it is set, and a point for each step."""

import time
from collections.abc import Mapping
from typing import Any, NamedTuple, Self

from tuning.config import Progress, TuningConfig

VALUES = {
    "loss": "train/loss",
    "eval_loss": "eval/loss",
    "learning_rate": "train/learning_rate",
    "grad_norm": "train/grad_norm",
    "epoch": "train/epoch",
    "tokens_per_second": "train/tokens_per_second",
    "gpu_memory_gib": "train/gpu_memory_gib",
}
"""Of a progress line, and what transformers' own callbacks call it."""


class Run(NamedTuple):
    """One run, whatever the attempt."""

    id: str
    """The same for every attempt."""
    name: str
    """For people."""
    settings: Mapping[str, Any]

    @classmethod
    def of(cls, config: TuningConfig) -> Self:
        """That of a config."""
        arguments, lora = config.training.arguments, config.training.lora
        about = {"model": config.model.id, "revision": config.model.revision, "method": config.method}
        settings = about | arguments.model_dump(exclude_none=True) | lora.model_dump(exclude_none=True)
        name = arguments.run_name or config.workspace.replace("/", "-").replace(" ", "-")
        return cls(f"kaito-{config.intent}", name, settings)


class Point(NamedTuple):
    """What is known after a step."""

    step: int
    seconds: float
    """When, since 1970."""
    values: Mapping[str, float]

    @classmethod
    def of(cls, progress: Progress) -> Self | None:
        """That of a progress line; None of one that tells no step."""
        if progress.step is None or (progress.loss is None and progress.eval_loss is None):
            return None
        said = {VALUES[name]: getattr(progress, name, None) for name in VALUES}
        return cls(progress.step, time.time(), {name: value for name, value in said.items() if value is not None})
