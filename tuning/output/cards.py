"""What is told of an adapter beside its files: how it came to be, and what a registry can be asked without pulling."""

import importlib.metadata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pydantic

from tuning import curve
from tuning.config import INTENT, TuningConfig
from tuning.curve import Curve
from tuning.output import drawing, readme
from tuning.report import log
from tuning.training import train

CURVE_POINTS = 200


class Base(pydantic.BaseModel, strict=True, frozen=True):
    """The model that an adapter is for, as its card has it."""

    id: str
    revision: str


class File(pydantic.BaseModel, strict=True, frozen=True):
    """A file that an adapter has learned from."""

    sha256: str


class Written(pydantic.BaseModel, strict=True, frozen=True):
    """What is asked of a card that lies beside an adapter: enough for `annotations`."""

    intent: str
    adapter: str
    """The digest that it tells of."""
    preset: str
    base_model: Base
    method: str
    data: list[File]
    loss: float
    versions: dict[str, str]


def summary(config: TuningConfig, trained: train.Trained, facts: Mapping[str, Any], steps: Curve) -> dict[str, Any]:
    """What made this adapter, for people and later runs.

    How long that took is in it too: it is written once, so that whoever pushes it again pushes the same bytes.
    """
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
        **_of_steps(steps),
        "device": _device(facts["processes"]),
        "versions": versions,
    }


def tell(folder: Path, card: Mapping[str, Any], steps: Curve, samples: Sequence[str]) -> dict[str, Path]:
    """The files that tell people of the adapter, by name: its card, the curve as a picture, a row for each step."""
    losses = [(row.step, row.loss) for row in steps.rows if row.loss is not None] or card["loss_curve"]
    title = f"{card['base_model']['id']}, {card['method']}"
    files = {name: folder / name for name in (readme.FILE, readme.PICTURE, curve.NAME)}
    try:
        files[readme.FILE].write_text(readme.text(card, samples))
        files[readme.PICTURE].write_text(drawing.svg(losses, card["eval_curve"], card["resumed_from"], title))
        steps.write(files[curve.NAME])
    except OSError as error:
        log.warning("the adapter goes without a card for people: %s", error)
        return {}
    return files


def _of_steps(steps: Curve) -> dict[str, Any]:
    """What only the steps know: evaluations, attempts, time, tokens, memory."""
    rows = steps.rows
    return {
        "eval_curve": [[row.step, row.eval_loss] for row in rows if row.eval_loss is not None],
        "resumed_from": steps.resumed_from,
        "seconds": round(steps.seconds, 1),
        "tokens": max((row.tokens or 0 for row in rows), default=0),
        "supervised_tokens": max((row.supervised_tokens or 0 for row in rows), default=0),
        "gpu_memory_gib": max((row.mem_gb or 0.0 for row in rows), default=0.0) or None,
    }


def _device(processes: int) -> str:
    import torch  # noqa: PLC0415

    name = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "CPU"
    return f"{processes} x {name}"  # each process sees its own alone


def annotations(card: Mapping[str, Any], intent: str) -> dict[str, str]:
    """What a registry can be asked without pulling; KAITO knows the first."""
    return {
        "sh.kaito.model.name": card["preset"],
        INTENT: intent,
        "sh.kaito.hera.base-model": f"{card['base_model']['id']}@{card['base_model']['revision']}",
        "sh.kaito.hera.method": card["method"],
        "sh.kaito.hera.data": ",".join(f"sha256:{file['sha256']}" for file in card["data"]),
        "sh.kaito.hera.loss": str(card["loss"]),
        "sh.kaito.hera.peft": card["versions"]["peft"],
    }
