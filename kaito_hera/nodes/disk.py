"""What a node says of its own disk, held against what tuning puts there at the least; and quantities of bytes. Pure."""

import re
from typing import Any

_KIND = "ephemeral-storage"
_QUANTITY = re.compile("([0-9]{1,20})(|[kMGTP]|[KMGTP]i)")
_UNITS = {"": 1, **{unit: 1000**n for n, unit in enumerate("kMGTP", 1)}}
_UNITS |= {f"{unit}i": 1024**n for n, unit in enumerate("KMGTP", 1)}


def refused(node: dict[str, Any], gib: float) -> str:
    """Why so many GiB of weights cannot be put onto it; empty where they can, or it does not say."""
    said = str(node.get("status", {}).get("allocatable", {}).get(_KIND, ""))
    has = read(said)
    if has is None or has >= gib:
        return ""
    return f"has {has:.1f} GiB of disk for pods ({_KIND}: {said}); the model's weights alone are {gib:.1f} GiB"


def is_meant(reason: str) -> bool:
    """Whether a node was refused for its disk."""
    return _KIND in reason


def read(said: str) -> float | None:
    """GiB of a quantity as Kubernetes writes it; None where it is none."""
    found = _QUANTITY.fullmatch(said)
    return int(found[1]) * _UNITS[found[2]] / 2**30 if found else None
