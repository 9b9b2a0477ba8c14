"""Finds a model, a GPU size or a region by name. The files are read when they are asked for, each once.

A model's file is called as the preset; `--` stands for the slash of a hub id.
"""

import difflib
import functools
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from presets.facts import Preset, Size

_FOLDER = Path(__file__).parent
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's where PyYAML was built with it: an eighth of the time."""


class UnknownNameError(LookupError):
    """A preset or size that no file here describes; the text names close ones."""


class Presets(Mapping[str, Preset]):
    """Every preset by name; a file is read when its preset is looked at."""

    def __init__(self, folder: Path) -> None:
        files = sorted(folder.glob("*.yaml"), key=lambda file: ("--" in file.stem, file.stem.lower()))
        self._files = {file.stem.replace("--", "/"): file for file in files}
        self._read: dict[str, Preset] = {}

    def __getitem__(self, name: str) -> Preset:
        if name not in self._read:
            self._read[name] = Preset(name=name, **load(self._files[name]))
        return self._read[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


@functools.cache
def presets() -> Presets:
    """Every preset by name: short names first, then the hub ids that have none."""
    return Presets(_FOLDER / "models")


@functools.cache
def batched() -> frozenset[str]:
    """Architectures of which the engine of serving/ answers many requests at once; others wait for each other."""
    return frozenset(load(_FOLDER / "architectures.yaml")["batched"])


@functools.cache
def sizes() -> dict[str, Size]:
    """Every GPU size by its cloud's name."""
    found: dict[str, Size] = {}
    for cloud in ("azure", "arc", "aws"):
        found |= _sizes(cloud, load(_FOLDER / f"sizes-{cloud}.yaml"))
    return found


def _sizes(cloud: str, data: dict[str, Any]) -> dict[str, Size]:
    common = {"cloud": cloud, **data.get("prices", {})}
    return {
        name: Size(name=name, **common, **{key: value for key, value in family.items() if key != "sizes"} | own)
        for family in data["families"].values()
        for name, own in family["sizes"].items()
    }


def preset(name: str) -> Preset:
    """The preset of that name or hub id, whatever the case of its letters; raises `UnknownNameError`."""
    canonical = _names().get(name.lower()) or (_hub_ids().get(name.lower()) if "/" in name else None)
    if canonical is None:
        known = [model.hub_id for model in presets().values()] if "/" in name else list(presets())
        raise _unknown(name, known, _OF_HUB if "/" in name else _ANY_MODEL, begins=True)
    return presets()[canonical]


_OF_HUB = "a Workspace may name it all the same: preflight asks the hub, which nothing else does"
_ANY_MODEL = "name one of `kaito-hera presets`, or a model of the hub as organisation/model"


def size(name: str) -> Size:
    """The size of that name, whatever the case of its letters; raises `UnknownNameError`."""
    canonical = _size_names().get(name.lower())
    if canonical is None:
        family = _family(name)
        kin = [one for one in sizes() if _family(one) == family]
        raise _unknown(name, kin, "it has no GPU, or is new: `kaito-hera sizes` lists those that are")
    return sizes()[canonical]


def region(name: str) -> str:
    """Azure's short name of that region, also for "West Europe"; raises `UnknownNameError`."""
    canonical = re.sub("[ _-]", "", name).lower()
    if canonical not in _regions():
        raise _unknown(name, _regions(), "name one of Azure's, for example westeurope")
    return canonical


def _family(name: str) -> str:
    """The letters that a size's name begins with: sizes of another kind are no slip of the pen."""
    found = re.match("(?:standard_)?([a-z]+)", name.lower())
    return found[1] if found else ""


@functools.cache
def _regions() -> tuple[str, ...]:
    return tuple(load(_FOLDER / "regions-azure.yaml"))


@functools.cache
def _names() -> dict[str, str]:
    return {name.lower(): name for name in presets()}


@functools.cache
def _hub_ids() -> dict[str, str]:
    return {model.hub_id.lower(): name for name, model in presets().items()}


@functools.cache
def _size_names() -> dict[str, str]:
    return {name.lower(): name for name in sizes()}


_FEW = 3
_SOME = 8


def _unknown(name: str, known: Iterable[str], remedy: str, *, begins: bool = False) -> UnknownNameError:
    """With names that are close, or first of all with those that begin so."""
    by_case = {one.lower(): one for one in known}
    text = name[:100].lower()
    close = [one for one in by_case if one.startswith(text)][:_SOME] if begins else []
    close = close or difflib.get_close_matches(text, by_case, n=_FEW)
    hint = f"did you mean one of: {', '.join(by_case[one] for one in close)}?" if close else remedy
    return UnknownNameError(f"{name[:100]!r} is not known; {hint}")


def load(file: Path) -> Any:
    """What a YAML file of this folder says."""
    return yaml.load(file.read_text(encoding="utf-8"), Loader=_LOADER)  # noqa: S506  # both are safe
