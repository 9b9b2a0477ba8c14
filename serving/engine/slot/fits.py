"""Whether a model can be batched by rows, and how much memory its keys and values may have.

What cannot is served one request at a time, with the reason. Architectures are named, since a wrong guess would not
fail but answer wrongly; each named one is compared with `generate` by tests/serving/test_slot_models.py.
"""

import math
from pathlib import Path
from typing import Any, NamedTuple

import torch

from serving.engine.slot.kv import GRAIN, Shape

BATCHED = frozenset({"gemma2", "gemma3_text", "llama", "mistral", "phi3", "qwen2"})
ROPES = frozenset({"default", "linear", "llama3", "longrope", "yarn", "proportional"})
"""Kinds of rotation in which a token's depends on its position alone (longrope's set of factors is chosen by row)."""
LONGROPE = frozenset({"phi3"})
"""Models whose `generate` computes everything again where longrope's factors change."""
GPU_SHARE, CPU_SHARE = 0.85, 0.5
"""Of the memory that is free once the model is loaded."""
FULL_REQUESTS = 4
"""So many requests of the longest kind fit, where the context is not given."""
LIMIT_FILES = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


class Unfit(ValueError):
    """The model cannot be batched; the message says why."""


class Fit(NamedTuple):
    """How a model is batched."""

    shape: Shape
    limit: int | None
    """The longest sequence of longrope's short factors."""


def fit(model: Any) -> Fit:
    """Raises Unfit."""
    if len(devices := {each.device for each in model.parameters()}) > 1:
        raise Unfit(f"its layers are on {len(devices)} GPUs, since one does not hold them")
    text = model.config.get_text_config()
    if text.model_type not in BATCHED or text is not model.config:
        raise Unfit(f"{model.config.model_type} is not among the architectures that are batched")
    kinds = {each.get("rope_type", "default") for each in _ropes(text)}
    if unknown := kinds - ROPES:
        raise Unfit(f"its rope_type {min(unknown)} depends on more than a token's position")
    if other := set(getattr(text, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}:
        raise Unfit(f"its layers of {min(other)} keep no keys and values of tokens")
    limit = None
    if "longrope" in kinds:
        if text.model_type not in LONGROPE:
            raise Unfit("it uses longrope otherwise than phi3")
        limit = next(each["original_max_position_embeddings"] for each in _ropes(text))
    size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    dtype = model.get_input_embeddings().weight.dtype
    return Fit(Shape(text.num_hidden_layers, heads, size, dtype, model.device), limit)


def _ropes(text: Any) -> list[dict[str, Any]]:
    """`rope_parameters`, which is by layer type where a model has several."""
    own = getattr(text, "rope_parameters", None) or {}
    inner = [each for each in own.values() if isinstance(each, dict) and "rope_type" in each]
    return inner or [own]


def budget(device: torch.device) -> int:
    """Bytes for keys and values on this device, now that the model is there."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0] * GPU_SHARE)
    return int(_free_memory() * CPU_SHARE)


def _free_memory() -> int:
    """Of the machine or of this container, whichever is less."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    for file in map(Path, LIMIT_FILES):
        if file.exists() and (limit := file.read_text().strip()).isdigit():
            used = int(Path("/proc/self/statm").read_text().split()[1]) * 4096
            free = min(free, max(0, int(limit) - used))
    return free


def context(asked: int | None, own: int, shape: Shape, bytes_free: int) -> tuple[int, str]:
    """How long a request may become, and why it is not longer; a context that was asked for may fill all memory."""
    share = bytes_free if asked else bytes_free / FULL_REQUESTS
    holds = max(GRAIN, math.floor(share / shape.bytes) // GRAIN * GRAIN - GRAIN)
    wanted = min(asked or own, own)
    if wanted <= holds:
        return wanted, ""
    whom = "one request" if asked else f"{FULL_REQUESTS} requests"
    return holds, (
        f"{holds} tokens instead of {wanted}: keys and values of {whom} of that length fill the {bytes_free >> 20} MiB "
        f"that are free, at {shape.bytes >> 10} KiB a token"
    )
