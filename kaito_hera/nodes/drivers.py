"""What GPU feature discovery says of a node's GPUs and driver, held against what the images can use. Pure."""

from collections.abc import Mapping
from typing import Any

from presets import kernels
from presets.kernels import Kernels

_PREFIX = "nvidia.com/"
_CAPABILITY = ("gpu.compute.major", "gpu.compute.minor")
_DRIVERS = (
    ("cuda.driver-version.major", "cuda.driver-version.minor", "cuda.driver-version.revision"),
    ("cuda.driver.major", "cuda.driver.minor", "cuda.driver.rev"),  # of earlier releases
)


def refused(node: dict[str, Any], has: Kernels) -> str:
    """Why images that `has` such kernels cannot use the node's GPUs; empty where they can, or nothing is known."""
    labels = node["metadata"].get("labels", {})
    compute = _numbers(labels, _CAPABILITY)
    if len(compute) == len(_CAPABILITY) and not has.run_on((compute[0], compute[1])):
        seen = ", ".join(f"{_PREFIX}{name}={labels[_PREFIX + name]}" for name in _CAPABILITY)
        return f"has GPUs of CUDA capability {kernels.text((compute[0], compute[1]))} ({seen}); the images have {has}"
    driver = ".".join(map(str, next(filter(None, (_numbers(labels, names) for names in _DRIVERS)), ())))
    if driver and not has.drive_with(driver):
        return f"has NVIDIA driver {driver}; the images need {has.minimum_driver} or newer"
    return ""


def _numbers(labels: Mapping[str, str], names: tuple[str, ...]) -> tuple[int, ...]:
    """The labels' values as far as they are numbers: the last one of a driver's may be empty."""
    found: list[int] = []
    for name in names:
        value = str(labels.get(_PREFIX + name, ""))
        if not value.isascii() or not value.isdigit():
            break
        found.append(int(value))
    return tuple(found)
