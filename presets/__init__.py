"""Facts: the models that a Workspace may name (one YAML each in models/), the GPU sizes, and what fits where.

Pure data and arithmetic; everything else may import it, and it imports nothing of ours.
"""

import difflib
import functools
from pathlib import Path
from typing import Any, TypeVar

import pydantic
import yaml

_FOLDER = Path(__file__).parent
_T = TypeVar("_T")


class UnknownNameError(LookupError):
    """A preset or size that no file here describes; the text names close ones."""


class _Facts(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)


class Shape(_Facts):
    """The architecture numbers that memory follows from (the model's config.json)."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    vocabulary: int
    tied_embeddings: bool


class Preset(_Facts):
    """One model."""

    name: str
    hub_id: str
    revision: str
    license: str
    architecture: str
    context_limit: int
    """Tokens."""
    weights_gib: float
    tunable: bool
    shape: Shape


class Size(_Facts):
    """One GPU size of a cloud."""

    name: str
    gpu: str
    gpus: int
    gpu_memory_gib: float
    """Of all GPUs of one node together."""
    capability: str
    """CUDA compute capability, `major.minor`."""
    quota_family: str
    vcpus: int
    usd_per_hour: float | None
    retired_on: str | None = None
    instead: tuple[str, ...] = ()


@functools.cache
def presets() -> dict[str, Preset]:
    """Every preset by name."""
    return {file.stem: Preset(name=file.stem, **_load(file)) for file in sorted((_FOLDER / "models").glob("*.yaml"))}


@functools.cache
def sizes() -> dict[str, Size]:
    """Every GPU size by its cloud's name."""
    return {name: Size(name=name, **facts) for name, facts in _load(_FOLDER / "sizes.yaml").items()}


def preset(name: str) -> Preset:
    """The preset of that name; raises `UnknownNameError`."""
    return _find(name, presets())


def size(name: str) -> Size:
    """The size of that name, whatever the case of its letters; raises `UnknownNameError`."""
    canonical = {known.lower(): known for known in sizes()}
    return _find(canonical.get(name.lower(), name), sizes())


def _find(name: str, known: dict[str, _T]) -> _T:
    try:
        return known[name]
    except KeyError:
        close = difflib.get_close_matches(name, known, n=3) or sorted(known)
        raise UnknownNameError(f"{name!r} is not known; did you mean one of: {', '.join(close)}?") from None


def _load(file: Path) -> dict[str, Any]:
    data: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    return data
