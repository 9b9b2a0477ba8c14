"""The adapter's weights: taken, put back, and written as files that any peft from 0.11 on, KAITO and vLLM read."""

import json
from pathlib import Path
from typing import Any

from tuning.config import TuningConfig

OLD_KEYS = frozenset(
    {
        "alpha_pattern", "auto_mapping", "base_model_name_or_path", "bias", "fan_in_fan_out", "inference_mode",
        "init_lora_weights", "layer_replication", "layers_pattern", "layers_to_transform", "loftq_config", "lora_alpha",
        "lora_dropout", "megatron_config", "megatron_core", "modules_to_save", "peft_type", "r", "rank_pattern",
        "revision", "target_modules", "task_type", "use_dora", "use_rslora",
    }
)  # fmt: skip
"""What peft 0.11 knows; it fails on any other key, and KAITO's image has 0.11."""


def save(model: Any, folder: Path, config: TuningConfig) -> dict[str, Path]:
    """The adapter's two files, by name."""
    import safetensors.torch  # noqa: PLC0415
    import torch  # noqa: PLC0415

    folder.mkdir(parents=True, exist_ok=True)
    # trained in fp32, where small steps add up; saved in half of that, which is what the base computes in
    halved = {name: tensor.to(torch.bfloat16) for name, tensor in weights(model).items()}
    saved = {"adapter_model.safetensors": folder / "adapter_model.safetensors"}
    safetensors.torch.save_file(halved, saved["adapter_model.safetensors"], metadata={"format": "pt"})
    saved["adapter_config.json"] = folder / "adapter_config.json"
    described = pruned(model.peft_config["default"])
    described |= {"base_model_name_or_path": config.model.id, "revision": config.model.revision, "inference_mode": True}
    saved["adapter_config.json"].write_text(json.dumps(described, indent=2, sort_keys=True) + "\n")
    return saved


def weights(model: Any) -> dict[str, Any]:
    """By the names that the file has them under, on the CPU and as they are."""
    import peft  # noqa: PLC0415

    # the default asks the hub whether the vocabulary has grown; it has not
    found = peft.get_peft_model_state_dict(model, save_embedding_layers=False)
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in found.items()}


def put_back(model: Any, taken: dict[str, Any]) -> None:
    """Give the model the weights that it had."""
    import peft  # noqa: PLC0415

    peft.set_peft_model_state_dict(model, taken)


def pruned(peft_config: Any) -> dict[str, Any]:
    """The config's old keys, and newer ones only where they say something."""
    silent = type(peft_config)().to_dict()
    kept = {
        key: value
        for key, value in peft_config.to_dict().items()
        if key in OLD_KEYS or (key != "peft_version" and value != silent.get(key))
    }
    return {key: sorted(value) if isinstance(value, set) else value for key, value in kept.items()}
