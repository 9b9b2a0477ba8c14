"""Where a model's layers go when one GPU does not hold it: one after the other onto the GPUs of the pod, whole.

Only the hidden states of a token travel from a GPU to the next, once for each. Knows modules and bytes; loading is
`loading`'s matter. Never run on GPUs: what is tested is the layout, and the answers with everything on the CPU.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

RUNTIME_GIB = 1.75
"""CUDA's context and the activations of a step, as presets/memory.py has it."""
SHARE = 0.9
"""Of what is free on a GPU: the rest is for keys and values of some requests."""


class Unit(NamedTuple):
    """What stays together on one GPU."""

    name: str
    size: int
    """Bytes of its parameters and buffers, but those that an earlier unit has already."""
    tied: bool
    """Its parameters are all an earlier unit's: the head of tied embeddings."""


def needs_several(size: int, free: Sequence[int]) -> bool:
    """Whether weights of so many bytes are to be divided among GPUs with so much free memory."""
    return len(free) > 1 and size + RUNTIME_GIB * 2**30 > SHARE * free[0]


def divided(model: nn.Module, devices: Sequence[str]) -> dict[str, str]:
    """A device for each unit of a model, as transformers' `device_map`; the model may be on torch's meta device."""
    parts = units(model)
    own = [part for part in parts if not part.tied]
    places = {
        part.name: devices[at] for part, at in zip(own, layout([one.size for one in own], len(devices)), strict=True)
    }
    return {part.name: devices[0] if part.tied else places[part.name] for part in parts}


def units(model: Any) -> list[Unit]:
    """Decoder layers, and what stands before, between and behind them, in the model's order."""
    whole = frozenset(getattr(model, "_no_split_modules", None) or ())  # transformers' word for what must not be cut
    seen: set[int] = set()
    found = []
    for name, tensors in _parts(model, "", whole):
        fresh = {id(tensor): tensor for tensor in tensors if id(tensor) not in seen}
        seen |= fresh.keys()
        size = sum(tensor.numel() * tensor.element_size() for tensor in fresh.values())
        found.append(Unit(name, size, bool(tensors) and not fresh))
    return found


def layout(sizes: Sequence[int], count: int) -> list[int]:
    """Which of `count` places each gets: in order, and the fullest place as empty as can be."""
    low, high = max(sizes, default=0), sum(sizes)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if _filled(sizes, middle)[-1] < count else (middle + 1, high)
    return _filled(sizes, low)


def size_of(model: nn.Module) -> int:
    """Bytes of all parameters and buffers, each counted once."""
    return sum(unit.size for unit in units(model))


def _parts(module: nn.Module, name: str, whole: frozenset[str]) -> Iterator[tuple[str, list[torch.Tensor]]]:
    """A module that holds no layer, or is one, as a whole; else what it is made of."""
    inner = any(type(each).__name__ in whole for each in module.modules())
    if name and (type(module).__name__ in whole or not inner):
        yield name, [*module.parameters(), *module.buffers()]
        return
    prefix = f"{name}." if name else ""
    for own, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
        yield prefix + own, [tensor]
    for child, part in module.named_children():
        yield from _parts(part, prefix + child, whole)


def _filled(sizes: Sequence[int], limit: int) -> list[int]:
    """Places in order, the next one where the limit would be passed."""
    places, place, held = [], 0, 0
    for size in sizes:
        if held and held + size > limit:
            place, held = place + 1, 0
        held += size
        places.append(place)
    return places or [0]
