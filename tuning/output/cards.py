"""What is told of an adapter beside its files: how it came to be, and what a registry can be asked without pulling."""

import importlib.metadata
from collections.abc import Mapping
from typing import Any

from tuning.config import INTENT, TuningConfig
from tuning.training import train

CURVE_POINTS = 200


def summary(config: TuningConfig, trained: train.Trained, facts: Mapping[str, Any]) -> dict[str, Any]:
    """What made this adapter, for people and later runs; without times, so that a repeated run makes the same image."""
    losses = trained.losses
    points = range(0, len(losses), max(1, len(losses) // CURVE_POINTS))
    versions = {name: importlib.metadata.version(name) for name in ("torch", "transformers", "peft", "bitsandbytes")}
    return {
        **facts,
        "preset": config.preset,
        "base_model": config.model.model_dump(),
        "method": config.method,
        "settings": config.training.model_dump(exclude={"warnings"}),
        "steps": len(losses),
        "loss": round(trained.loss, 5),
        "eval_loss": trained.eval_loss,
        "ended_early": trained.ended_early,
        "computed": trained.resolved.model_dump(),
        "loss_curve": [[index + 1, round(losses[index], 5)] for index in points],
        "versions": versions,
    }


def annotations(config: TuningConfig, facts: Mapping[str, Any]) -> dict[str, str]:
    """What a registry can be asked without pulling; KAITO knows the first."""
    return {
        "sh.kaito.model.name": config.preset,
        INTENT: config.intent,
        "sh.kaito.hera.base-model": f"{config.model.id}@{config.model.revision}",
        "sh.kaito.hera.method": config.method,
        "sh.kaito.hera.data": ",".join(f"sha256:{file['sha256']}" for file in facts["data"]),
        "sh.kaito.hera.loss": str(facts["loss"]),
        "sh.kaito.hera.peft": facts["versions"]["peft"],
    }
