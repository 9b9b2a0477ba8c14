"""Linear layers for CPUs: weights in the order in which oneDNN multiplies them, laid so once.

In float32 that is 1.5 to 3 times faster than torch's own way for the 8 to 32 tokens of a decoding step on AMD's
processors (measured, see README.md), and as exact. Torch offers it to its compiler only, so it is tried on one layer
first, and left alone where it fails or is no faster.
"""

import logging
import time
from collections.abc import Callable

import torch
from torch import nn

log = logging.getLogger("serving.engine")
TOKENS = 64
"""For how many at once the order is best."""
LEAST_TOKENS = 16
"""With so many it must pay."""
LEAST = 1 << 15
"""Smaller matrices gain nothing."""


class PackedLinear(nn.Module):
    """A linear layer with packed weights."""

    def __init__(self, own: nn.Linear) -> None:
        super().__init__()
        self.own = own
        self.in_features, self.out_features = own.in_features, own.out_features
        self.bias = own.bias
        self._packed = packed(own.weight.detach())

    @property
    def weight(self) -> torch.Tensor:
        """The weights as they were."""
        return self.own.weight

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """The same as torch's own, which is the faster one for a single token."""
        if hidden.numel() == self.in_features:
            output: torch.Tensor = self.own(hidden)
            return output
        return times(hidden, self._packed, self.bias)


def packed(weight: torch.Tensor) -> torch.Tensor:
    """A float32 matrix [out, in] in oneDNN's own order."""
    order: torch.Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, TOKENS)  # noqa: SLF001
    return order


def times(hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """`hidden` times a packed matrix."""
    output: torch.Tensor = torch.ops.mkldnn._linear_pointwise(hidden, weight, bias, "none", [], "")  # noqa: SLF001
    return output


def times_plus(hidden: torch.Tensor, weight: torch.Tensor, more: torch.Tensor) -> torch.Tensor:
    """`hidden` times a packed matrix, plus `more`, in one go."""
    output: torch.Tensor = torch.ops.mkldnn._linear_pointwise.binary(hidden, more, weight, None, "add")  # noqa: SLF001
    return output


def pack(model: nn.Module, *, spare_bytes: int, force: bool = False) -> bool:
    """Pack the larger float32 layers if that works and pays (or by force), and the copies fit; whether it was done."""
    found = [
        (name, module)
        for name, module in model.named_modules()
        if type(module) is nn.Linear and module.weight.numel() >= LEAST
    ]
    wrong = any(module.weight.device.type != "cpu" or module.weight.dtype != torch.float32 for _, module in found)
    need = sum(module.weight.numel() * 4 for _, module in found)
    if not found or wrong or need > spare_bytes or not (force or _pays(max((each for _, each in found), key=_size))):
        return False
    for name, module in found:
        model.set_submodule(name, PackedLinear(module))
    return True


def _size(linear: nn.Linear) -> int:
    return linear.weight.numel()


def _pays(linear: nn.Linear) -> bool:
    try:
        tried = PackedLinear(linear)
        hidden = torch.randn(LEAST_TOKENS, linear.in_features)
        if not torch.allclose(tried(hidden), linear(hidden), rtol=1e-3, atol=1e-4):
            return False
        return _seconds(lambda: tried(hidden)) < _seconds(lambda: linear(hidden))
    except (AttributeError, RuntimeError) as error:
        log.info("weights are not packed: %s", str(error).partition("\n")[0])
        return False


def _seconds(work: Callable[[], object]) -> float:
    """The shortest of some runs."""
    times = []
    for _ in range(10):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)
