"""Writes a trained adapter as files that any peft from 0.11 on, KAITO and vLLM read, and what else its image holds."""

import importlib.metadata
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tuning import train
from tuning.config import INTENT, TuningConfig

OLD_KEYS = frozenset(
    {
        "alpha_pattern", "auto_mapping", "base_model_name_or_path", "bias", "fan_in_fan_out", "inference_mode",
        "init_lora_weights", "layer_replication", "layers_pattern", "layers_to_transform", "loftq_config", "lora_alpha",
        "lora_dropout", "megatron_config", "megatron_core", "modules_to_save", "peft_type", "r", "rank_pattern",
        "revision", "target_modules", "task_type", "use_dora", "use_rslora",
    }
)  # fmt: skip
"""What peft 0.11 knows; it fails on any other key, and KAITO's image has 0.11."""

CURVE_POINTS = 200


def save(model: Any, folder: Path, config: TuningConfig) -> dict[str, Path]:
    """The adapter's two files, by name."""
    import safetensors.torch  # noqa: PLC0415
    import torch  # noqa: PLC0415

    folder.mkdir(parents=True, exist_ok=True)
    # trained in fp32, where small steps add up; saved in half of that, which is what the base computes in
    halved = {name: tensor.to(torch.bfloat16) for name, tensor in train.weights(model).items()}
    saved = {"adapter_model.safetensors": folder / "adapter_model.safetensors"}
    safetensors.torch.save_file(halved, saved["adapter_model.safetensors"], metadata={"format": "pt"})
    saved["adapter_config.json"] = folder / "adapter_config.json"
    described = pruned(model.peft_config["default"])
    described |= {"base_model_name_or_path": config.model.id, "revision": config.model.revision, "inference_mode": True}
    saved["adapter_config.json"].write_text(json.dumps(described, indent=2, sort_keys=True) + "\n")
    return saved


def pruned(peft_config: Any) -> dict[str, Any]:
    """The config's old keys, and newer ones only where they say something."""
    silent = type(peft_config)().to_dict()
    kept = {
        key: value
        for key, value in peft_config.to_dict().items()
        if key in OLD_KEYS or (key != "peft_version" and value != silent.get(key))
    }
    return {key: sorted(value) if isinstance(value, set) else value for key, value in kept.items()}


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
