"""What a node says of its own disk, held against what tuning puts there at the least. Pure."""

import re
from typing import Any

_KIND = "ephemeral-storage"
_QUANTITY = re.compile("([0-9]{1,20})(|[kMGT]|[KMGT]i)")
_UNITS = {"": 1, **{unit: 1000**n for n, unit in enumerate("kMGT", 1)}}
_UNITS |= {f"{unit}i": 1024**n for n, unit in enumerate("KMGT", 1)}


def refused(node: dict[str, Any], gib: float) -> str:
    """Why so many GiB of weights cannot be put onto it; empty where they can, or it does not say."""
    said = str(node.get("status", {}).get("allocatable", {}).get(_KIND, ""))
    found = _QUANTITY.fullmatch(said)
    has = int(found[1]) * _UNITS[found[2]] / 2**30 if found else gib
    if has >= gib:
        return ""
    return f"has {has:.1f} GiB of disk for pods ({_KIND}: {said}); the model's weights alone are {gib:.1f} GiB"
