"""Which GPU sizes are to be had for what is asked, cheapest first, and which smaller model else. Pure."""

import datetime

import presets
from kaito_hera import loads
from kaito_hera.loads import Demand
from presets import kernels, memory
from presets.facts import NO_CUDA
from presets.kernels import Kernels

BFLOAT16_CAPABILITY = (8, 0)
"""Lowest that computes in bfloat16."""
_WORTH = 2.0
"""What one GPU that holds a model may cost, of what several cost that do together."""


def able(
    needs: tuple[Demand, ...], *, region: str | None = None, cloud: str = "azure", has: Kernels = kernels.PINNED
) -> list[presets.Size]:
    """The sizes of a cloud that meet all that is asked, with a margin, and that the images can use.

    Those of which one GPU serves, or, where that is dear, all whose GPUs do; where none does, those on which less is
    computed at once.
    """
    bfloat16 = any(demand.bfloat16 and demand.verb == "serve" for demand in needs)
    lowest = BFLOAT16_CAPABILITY if bfloat16 else NO_CUDA
    sold = memory.cheapest(0.0, region=region, has=has, cloud=cloud)
    ways = [(size, _ways(size, needs)) for size in sold if size.compute >= lowest]
    held = [(size, found) for size, found in ways if None not in found]
    good = [size for size, found in held if not any(found)]
    alone = [
        size for size in good if all(demand.taken(_usable(size), size.gpus) == 1 for demand in needs if demand.spread)
    ]
    return alone if _is_worth_it(alone, good, region) else good or [size for size, _ in held]


def holders(
    demand: Demand, *, region: str | None = None, cloud: str = "azure", on: datetime.date | None = None
) -> list[presets.Size]:
    """The sizes of which one GPU holds it as it is asked for; where none does, or dearly, all whose GPUs do."""
    alone = memory.cheapest(demand.need.gib, region=region, cloud=cloud, on=on)
    if not demand.spread:
        return alone
    sold = memory.cheapest(0.0, region=region, cloud=cloud, on=on)
    divided = [size for size in sold if demand.way(_usable(size), size.gpus) is not None]
    return alone if _is_worth_it(alone, divided, region) else divided


def _is_worth_it(alone: list[presets.Size], divided: list[presets.Size], region: str | None) -> bool:
    """Whether one GPU that holds a model is to be preferred to several cheaper ones, cheapest first.

    On several, our engine answers one request at a time; so it may cost twice as much, and not ten times.
    """
    if not alone or not divided:
        return bool(alone)
    one, several = alone[0].usd(region), divided[0].usd(region)
    return one is None or several is None or one <= _WORTH * several


def smaller(model: presets.Preset) -> str:
    """The largest of the smaller models of the same family that some size holds; empty where there is none.

    Of those for the same use first, which names end with. Sizes that will be retired do not count.
    """
    kin = [other for other in presets.presets().values() if _family(other) == _family(model)]
    held = [
        other
        for other in kin
        if other.weights_gib < model.weights_gib and other.tunable >= model.tunable and other.upstream != "deprecated"
        if "transformers" in other.runtimes
        if holders(loads.serve(other), on=datetime.date.max)
    ]
    ending = model.name.rpartition("-")[2]
    return max(held, key=lambda other: (other.name.endswith(ending), other.weights_gib)).name if held else ""


def _ways(size: presets.Size, needs: tuple[Demand, ...]) -> list[int | None]:
    return [demand.way(_usable(size), size.gpus) for demand in needs]


def _usable(size: presets.Size) -> float:
    return size.gib_per_gpu * size.usable


def price(size: presets.Size, region: str | None = None) -> str:
    """Dollars per hour in parentheses, for behind a name; empty where not known."""
    usd = size.usd(region)
    return "" if usd is None else f" ({usd:.2f} USD/h)"


def _family(model: presets.Preset) -> str:
    return model.name.lower().rpartition("/")[2].partition("-")[0]
