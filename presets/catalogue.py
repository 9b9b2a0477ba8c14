"""Finds a model or a GPU size by name. The files are read when they are asked for, each once.

A model's file is called as the preset; `--` stands for the slash of a hub id.
"""

import difflib
import functools
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
        raise _unknown(name, known, "name one of `kaito-hera presets`, or a model of the hub as organisation/model")
    return presets()[canonical]


def size(name: str) -> Size:
    """The size of that name, whatever the case of its letters; raises `UnknownNameError`."""
    canonical = _size_names().get(name.lower())
    if canonical is None:
        raise _unknown(name, sizes(), "name one with NVIDIA GPUs, for example Standard_NC24ads_A100_v4")
    return sizes()[canonical]


@functools.cache
def _names() -> dict[str, str]:
    return {name.lower(): name for name in presets()}


@functools.cache
def _hub_ids() -> dict[str, str]:
    return {model.hub_id.lower(): name for name, model in presets().items()}


@functools.cache
def _size_names() -> dict[str, str]:
    return {name.lower(): name for name in sizes()}


def _unknown(name: str, known: Iterable[str], remedy: str) -> UnknownNameError:
    by_case = {one.lower(): one for one in known}
    close = [by_case[one] for one in difflib.get_close_matches(name[:100].lower(), by_case, n=3)]
    hint = f"did you mean one of: {', '.join(close)}?" if close else remedy
    return UnknownNameError(f"{name[:100]!r} is not known; {hint}")


def load(file: Path) -> dict[str, Any]:
    """What a YAML file of this folder says."""
    data: dict[str, Any] = yaml.load(file.read_text(encoding="utf-8"), Loader=_LOADER)  # noqa: S506  # both are safe
    return data
