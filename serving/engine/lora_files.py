"""Reads a LoRA adapter from a folder and says whether it fits a model, before any weight of the model is touched.

Only plain LoRA on linear layers is exact under a weighted sum, so that is all that is read; what else peft can write is
refused with its name. Knows files and shapes, not how or when an adapter is used.
"""

import json
import math
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors
import torch

from serving.engine.protocol import AdapterRefused

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."
KEY = re.compile(r"(?P<module>.+)\.lora_(?P<side>[AB])(\.[^.]+)?\.weight")
REFUSED: dict[
    str, tuple[object, ...]
] = {  # field of adapter_config.json: the values under which it changes nothing here
    "use_dora": (False, None),
    "modules_to_save": (None, []),
    "bias": ("none", None),
    "lora_bias": (False, None),
    "fan_in_fan_out": (False, None),
    "use_qalora": (False, None),
    "layer_replication": (None, []),
    "target_parameters": (None, []),
    "trainable_token_indices": (None, [], {}),
    "alora_invocation_tokens": (None, []),
    "arrow_config": (None,),
}
CHANGES_BASE = ("pissa", "olora", "loftq", "corda")
"""Ways to initialise LoRA that leave the base's weights changed; such an adapter is wrong on the published base."""


@dataclass(frozen=True)
class Pair:
    """The two factors for one linear layer: it adds `up @ down @ x`; the adapter's own scaling is inside `up`."""

    down: torch.Tensor
    """[rank, in], float32."""
    up: torch.Tensor
    """[out, rank], float32."""


def read(folder: Path, linears: Mapping[str, tuple[int, int]]) -> dict[str, Pair]:
    """The adapter in `folder` as one pair for each linear layer it names; `linears`: names to (in, out) features."""
    config = _config(folder / CONFIG)
    _refuse_other_kinds(config)
    factors: dict[str, dict[str, torch.Tensor]] = {}
    for module, side, tensor in _tensors(folder / WEIGHTS):
        factors.setdefault(module, {})[side] = tensor
    if not factors:
        raise AdapterRefused(f"{WEIGHTS} holds no LoRA weights")
    return {module: _pair(module, sides, config, linears.get(module)) for module, sides in factors.items()}


def _config(file: Path) -> dict[str, object]:
    try:
        config = json.loads(file.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise AdapterRefused(f"/data/{file.name} cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise AdapterRefused(f"/data/{file.name} is not a JSON object")
    return config


def _refuse_other_kinds(config: Mapping[str, object]) -> None:
    if config.get("peft_type") != "LORA":
        raise AdapterRefused(f"{CONFIG} has peft_type {config.get('peft_type')!r}; only LORA can be served")
    for field, harmless in REFUSED.items():
        if field in config and config[field] not in harmless:
            raise AdapterRefused(f"{CONFIG} has {field} {config[field]!r}, which cannot be served; train without it")
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(CHANGES_BASE):
        raise AdapterRefused(
            f"{CONFIG} has init_lora_weights {start!r}, which needs a changed base; convert it to LoRA"
        )


def _tensors(file: Path) -> Iterator[tuple[str, str, torch.Tensor]]:
    try:
        with safetensors.safe_open(file, framework="pt") as tensors:
            for key in tensors.keys():  # noqa: SIM118 (not a mapping)
                found = KEY.fullmatch(key.removeprefix(PREFIX))
                if found is None:
                    raise AdapterRefused(f"{file.name} holds {key}, which is no LoRA weight of a linear layer")
                yield found["module"], found["side"], tensors.get_tensor(key).float()
    except (OSError, safetensors.SafetensorError) as error:
        raise AdapterRefused(f"/data/{file.name} cannot be read: {error}") from error


def _pair(
    module: str, sides: Mapping[str, torch.Tensor], config: Mapping[str, object], shape: tuple[int, int] | None
) -> Pair:
    if shape is None:
        raise AdapterRefused(f"it was made for another base model: this one has no linear layer {module}")
    if sides.keys() != {"A", "B"}:
        raise AdapterRefused(f"{WEIGHTS} has only one of lora_A and lora_B for {module}")
    down, up = sides["A"], sides["B"]
    rank = _number(config, "r", "rank_pattern", module)
    if down.shape != (rank, shape[0]) or up.shape != (shape[1], rank):
        raise AdapterRefused(
            f"it was made for another base model: {module} needs lora_A {[int(rank), shape[0]]} and lora_B "
            f"{[shape[1], int(rank)]}, it has {list(down.shape)} and {list(up.shape)}"
        )
    alpha = _number(config, "lora_alpha", "alpha_pattern", module)
    up = up * (alpha / (math.sqrt(rank) if config.get("use_rslora") else rank))
    if not (torch.isfinite(down).all() and torch.isfinite(up).all()):
        raise AdapterRefused(f"its weights for {module}, times lora_alpha {alpha:g}, are not finite numbers")
    return Pair(down, up)


def _number(config: Mapping[str, object], field: str, pattern_field: str, module: str) -> float:
    """`r` or `lora_alpha` of one module: the first pattern that ends the module's name wins, as in peft."""
    value, patterns = config.get(field), config.get(pattern_field)
    if isinstance(patterns, dict):
        hit = next((key for key in patterns if _names(key, module, pattern_field)), None)
        value = value if hit is None else patterns[hit]
    if not isinstance(value, int | float) or not 0 < value <= sys.float_info.max:  # JSON has NaN and 400 digits
        raise AdapterRefused(f"{CONFIG} has {field} {value!r} for {module}; it must be a finite number above 0")
    return float(value)


def _names(pattern: str, module: str, field: str) -> bool:
    try:
        return re.fullmatch(rf"(.*\.)?({pattern})", module) is not None
    except (re.error, RecursionError) as error:
        raise AdapterRefused(f"{CONFIG} has {pattern!r} in {field}, which is no regular expression: {error}") from error
