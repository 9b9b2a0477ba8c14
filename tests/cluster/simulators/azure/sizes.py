"""VM sizes and their quota families: sizes.yaml as Python values.

Independent of the product's own table on purpose: a slip there must not be mirrored here.
"""

from pathlib import Path
from typing import NamedTuple

import yaml

REGIONAL, SPOT = "cores", "lowPriorityCores"
"""Quotas that count vCPUs of every family; Spot nodes count in the second one alone."""


class Size(NamedTuple):
    """One VM size; memory in GiB."""

    name: str
    family: str
    vcpus: int
    memory: int
    gpus: int


_DATA = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
SIZES = {
    name.lower(): Size(name=name, family=family, **facts)
    for family, sizes in _DATA.items()
    for name, facts in sizes.items()
}
FAMILIES = tuple(_DATA)


def find(name: str) -> Size | None:
    """By name, whatever its case, as Azure does it."""
    return SIZES.get(name.lower())
