"""Which GPUs and drivers the images' torch can use: from its own list of kernels, by CUDA's rules of compatibility.

Pure: `tuning/training/kernels.py` asks torch, in the image that `make images` has built.
"""

import re
from collections.abc import Iterable
from typing import Annotated, Self

import pydantic
from pydantic.alias_generators import to_camel

from presets.facts import NO_CUDA, Capability

_KERNEL = re.compile(r"^(\d+)\.(\d+)([af]?)(\+PTX)?$")
_FLAG = re.compile(r"^(sm|compute)_(\d+)(\d)([af]?)$")
_DRIVERS = {"11": "450.80.02", "12": "525.60.13", "13": "580.65.06"}
"""The oldest driver for Linux that runs programs of any release of a CUDA major version, by NVIDIA's table."""


class Kernels(pydantic.BaseModel):
    """What a build of torch needs of a GPU and of its driver."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)

    capabilities: Annotated[
        tuple[Annotated[str, pydantic.StringConstraints(pattern=_KERNEL.pattern)], ...], pydantic.Field(min_length=1)
    ]
    """CUDA compute capabilities as `major.minor`; with +PTX where newer GPUs can compile the kernels for themselves."""
    minimum_driver: Annotated[str, pydantic.StringConstraints(pattern=r"^\d+(\.\d+)*$")]
    """Version of NVIDIA's driver."""

    @classmethod
    def of(cls, flags: Iterable[str], cuda: str) -> Self:
        """From torch's own words, `torch.cuda.get_arch_list()` and `torch.version.cuda`; raises ValueError."""
        compiled = named(flags)
        driver = _DRIVERS.get(cuda.partition(".")[0])
        if not compiled or driver is None:
            raise ValueError(
                f"torch for CUDA {cuda} has kernels for {', '.join(compiled) or 'nothing'}, and CUDA releases"
                f" {', '.join(_DRIVERS)} are known; take another torch, or add the driver that this CUDA needs"
            )
        return cls(capabilities=compiled, minimum_driver=driver)

    def run_on(self, capability: Capability) -> bool:
        """Whether a GPU of this capability can run them.

        Binaries run on GPUs of the same major version that are as new or newer, those marked `a` on no other; what is
        kept as PTX is compiled for any newer GPU.
        """
        return any(_runs(kernel, capability) for kernel in self.capabilities)

    @property
    def lowest(self) -> Capability:
        """Below it there is nothing."""
        return min(_parsed(kernel)[0] for kernel in self.capabilities)

    def drive_with(self, driver: str) -> bool:
        """Whether a driver of this version is new enough, as far as its version is known."""
        seen, least = (tuple(int(part) for part in text.split(".")) for text in (driver, self.minimum_driver))
        return seen >= least[: len(seen)]

    def __str__(self) -> str:
        return ", ".join(self.capabilities)


def named(flags: Iterable[str]) -> tuple[str, ...]:
    """What torch calls `sm_90`, `sm_90a` or `compute_120`, as capabilities."""
    matches = [match for match in map(_FLAG.match, flags) if match]
    compiled = {f"{match[2]}.{match[3]}{match[4]}": None for match in matches}
    portable = {f"{match[2]}.{match[3]}" for match in matches if match[1] == "compute" and not match[4]}
    return tuple(f"{one}+PTX" if one in portable else one for one in compiled)


def _runs(kernel: str, capability: Capability) -> bool:
    own, mark, portable = _parsed(kernel)
    if mark == "a":
        return capability == own
    return (capability[0] == own[0] and capability >= own) or (portable and capability >= own)


def _parsed(kernel: str) -> tuple[Capability, str, bool]:
    match = _KERNEL.match(kernel)
    assert match, "validated"
    return (int(match[1]), int(match[2])), match[3], bool(match[4])


def text(capability: Capability) -> str:
    """As people write it."""
    return ".".join(map(str, capability)) if capability > NO_CUDA else ""


PINNED = Kernels(capabilities=("7.5", "8.0", "8.6", "9.0", "10.0", "12.0"), minimum_driver=_DRIVERS["13"])
"""Those of the torch that requirements/model.txt pins; tests/presets/test_kernels.py asks it."""
