"""What the admission policies know of presets and GPU sizes: rows of words by key, as their parameter object has them.

The rules read these rows in both languages, so what they compare is the same down to the last digit.
"""

import dataclasses
import datetime
import functools
from collections.abc import Callable

import presets
from kaito_hera import loads, offers, sizing
from presets import memory

NAMES = "names"
TUNABLE = "tunable"
_FLOOR = loads.Batch(rows=1, length=128, rank=1)
"""Less is not tuned: what training_config asks for is preflight's matter, this is what no config goes below."""
_NEVER = datetime.date.max
_NONE = "-"


@dataclasses.dataclass(frozen=True)
class Preset:
    """A row of a preset; GiB are of one GPU, with the margin."""

    access: str
    runtime: str
    """own: this product serves it; other: only another runtime can."""
    tuning: str
    """tunable or fixed."""
    upstream: str
    serve: str
    """Of one GPU that serves alone; `each` and a GPU's share of `spread` where all of a node serve."""
    each: str
    spread: str
    lora: str
    qlora: str
    for_serve: str
    """A size that holds it, the cheapest; likewise for the methods of tuning."""
    for_lora: str
    for_qlora: str
    smaller: str
    """Where no size holds it for one of these: a model of its family that is held."""


class Tables:
    """The rows, made when they are asked for."""

    def preset(self, name: str) -> Preset | None:
        """The row of a preset, by its name or hub id."""
        if "--" in name:  # in keys it stands for the slash
            return None
        try:
            return _preset(presets.preset(name).name)
        except presets.UnknownNameError:
            return None

    def usable(self, name: str) -> str:
        """GiB of one GPU of a size that a process gets, 0.0 where not known; empty where the size is not."""
        return self._said(_usable, name)

    def gpus(self, name: str) -> str:
        """How many GPUs a size has, where that is more than one; else empty."""
        return self._said(_gpus, name)

    def kernels(self, name: str) -> str:
        """Why the images cannot use the GPUs of a size; empty where they can."""
        return self._said(_kernels, name)

    def last_day(self, name: str) -> str:
        """When a cloud gives a size up; empty where nothing is known of it."""
        return self._said(_last_day, name)

    @staticmethod
    def _said(of: Callable[[str], str], name: str) -> str:
        try:
            return of(presets.size(name).name)
        except presets.UnknownNameError:
            return ""

    def names(self) -> list[str]:
        """Of all presets."""
        return list(presets.presets())

    def tunable(self) -> list[str]:
        """Short names of those that can be tuned."""
        return [name for name, model in presets.presets().items() if model.tunable and "/" not in name]


def data() -> dict[str, str]:
    """All rows by key."""
    tables = Tables()
    rows = {NAMES: " ".join(tables.names()), TUNABLE: ", ".join(tables.tunable())}
    for name, model in presets.presets().items():
        row = " ".join(dataclasses.astuple(_preset(name)))
        rows |= {key("preset", alias): row for alias in (model.hub_id, name)}
    for name in presets.sizes():
        rows[key("size", name)] = _usable(name)
        notes = {"kernels": _kernels(name), "last": _last_day(name), "gpus": _gpus(name)}
        rows |= {key(kind, name): note for kind, note in notes.items() if note}
    return dict(sorted(rows.items()))


def key(kind: str, name: str) -> str:
    """Where a row is: names count whatever the case of their letters."""
    return f"{kind}.{name.lower().replace('/', '--')}"


def column(name: str) -> int:
    """The place of a word in a preset's row."""
    return [field.name for field in dataclasses.fields(Preset)].index(name)


@functools.cache
def _preset(name: str) -> Preset:
    model = presets.presets()[name]
    served = loads.serve(model)
    serve = served.gib
    lora, qlora = (loads.tune(model, method, _FLOOR).gib if model.tunable else 0.0 for method in ("lora", "qlora"))
    divided = offers.holders(served, on=_NEVER)
    holders = [divided[0].name if divided else _NONE, *(_holder(gib) for gib in (lora, qlora))]
    needed = any(gib and holder == _NONE for gib, holder in zip((serve, lora, qlora), holders, strict=True))
    return Preset(
        access=model.access,
        runtime="own" if "transformers" in model.runtimes else "other",
        tuning="tunable" if model.tunable else "fixed",
        upstream=model.upstream,
        serve=_gib(serve),
        each=f"{served.gib_of(2) - served.spread * loads.MARGIN / 2:.3f}",
        spread=f"{served.spread * loads.MARGIN:.3f}",
        lora=_gib(lora),
        qlora=_gib(qlora),
        for_serve=holders[0],
        for_lora=holders[1],
        for_qlora=holders[2],
        smaller=(offers.smaller(model) if needed else "") or _NONE,
    )


def _holder(gib: float) -> str:
    able = memory.cheapest(gib / loads.MARGIN, on=_NEVER) if gib else []
    return able[0].name if able else _NONE


@functools.cache
def _usable(name: str) -> str:
    size = presets.sizes()[name]
    return _gib(size.gib_per_gpu * size.usable)


@functools.cache
def _gpus(name: str) -> str:
    gpus = presets.sizes()[name].gpus
    return str(gpus) if gpus > 1 else ""


_THEN = ", so preflight refuses it unless the setting kernels has it or gpuCapabilityCheck is warn"


@functools.cache
def _kernels(name: str) -> str:
    size = presets.sizes()[name]
    said = sizing.unusable(size)
    return _instead(size, f"{said}{_THEN}" if said else "")


@functools.cache
def _last_day(name: str) -> str:
    size = presets.sizes()[name]
    left = "from then on it is had only where it is left over"
    said = f"{name} is retired from the public cloud on {size.retired_on}, {left}"
    return _instead(size, said if size.retired_on else "")


def _instead(size: presets.Size, said: str) -> str:
    others = " or ".join(f"{other}{offers.price(presets.size(other))}" for other in size.instead)
    return f"{said}; take {others} instead" if said and others else said


def _gib(gib: float) -> str:
    """As everything else shows it; what fits before it is rounded fits after."""
    return f"{gib:.1f}"
