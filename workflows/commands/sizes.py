"""`kaito-hera sizes`: the GPU sizes that are known, or those that hold a model, cheapest first."""

import argparse
import datetime
import sys
from typing import Any

import presets
from kaito_hera import loads, offers, sizing
from kaito_hera.paper import Paper
from workflows.commands import presets as models
from workflows.commands import printing
from workflows.outlook import Part
from workflows.outlook.documents import UnreadableError

NEVER = 10
"""Exit code when no size will do."""
_FOR = "what the model is for: to serve it (the default), or to tune it by that tuning.method"


class Size(Part):
    """One GPU size."""

    name: str
    cloud: str
    gpu: str
    gpus: int
    """Of a node; 0 where not known."""
    gpu_gib: float
    """Of one GPU, as its vendor counts."""
    usable_gib: float
    """What of it a process gets."""
    capability: str | None
    """CUDA compute capability."""
    quota_family: str
    vcpus: int
    """Of a node: clouds count quotas in these."""
    usd_per_hour: float | None
    """On demand; None where it is not known, or not sold in the region."""
    region: str | None
    """Whose price it is; None for the lowest of all regions."""
    priced_on: datetime.date | None
    retired_on: datetime.date | None
    instead: tuple[str, ...]
    unusable: str
    """Why the images cannot run on it; empty when they can."""
    share: float | None = None
    """Of the usable memory, what the model takes."""
    note: str


class Sizes(Part):
    """What `-o json` and `-o yaml` print."""

    sizes: tuple[Size, ...]


def add_to(commands: Any) -> None:
    """The command and its arguments."""
    command = commands.add_parser("sizes", help="the GPU sizes that are known; those that hold a model")
    fits = "show the sizes that hold this model, on one GPU or else on all GPUs of a node"
    command.add_argument("--fits", metavar="PRESET", help=fits)
    command.add_argument("--for", dest="use", choices=["serve", "qlora", "lora"], default="serve", help=_FOR)
    command.add_argument(
        "--cloud", choices=["azure", "aws", "arc"], help="whose sizes (default: all; with --fits: azure)"
    )
    printing.add_arguments(command)
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Print them; exits with 2 for a name that nobody knows, with 10 where nothing holds the model."""
    found, cloud, region = list(presets.sizes().values()), arguments.cloud, arguments.region
    demand = None
    if arguments.fits:
        demand = _demand(arguments.fits, arguments.use)
        found = offers.holders(demand, region=region, cloud=cloud or "azure")
    gib = demand.gib if demand else None
    sizes = tuple(describe(size, region, demand) for size in found if cloud in {None, size.cloud})
    printing.show(Sizes(sizes=sizes), _lines(sizes, arguments, gib, Paper.of(sys.stdout)), arguments.output)
    if gib and not sizes:
        sys.exit(NEVER)


def _demand(name: str, use: str) -> loads.Demand:
    try:
        demands = models.demands(presets.preset(name))
    except presets.UnknownNameError as cause:
        raise UnreadableError(str(cause)) from cause
    if use not in demands:
        able = ", ".join(demands) or "vLLM alone (kaito.sh/runtime: vllm): `kaito-hera plan` says which sizes hold it"
        raise UnreadableError(f"--for {use}: {name} is not made for it here, it is for {able}")
    return demands[use]


def describe(size: presets.Size, region: str | None, demand: loads.Demand | None = None) -> Size:
    """The facts and what follows from them."""
    usable = size.gib_per_gpu * size.usable
    gib = demand.gib_of(demand.taken(usable, size.gpus) if demand.spread else 1) if demand else None
    own = ("name", "cloud", "gpu", "gpus", "capability", "quota_family", "vcpus", "priced_on", "retired_on", "instead")
    return Size(
        **{name: getattr(size, name) for name in (*own, "note")},
        gpu_gib=round(size.gib_per_gpu, 2),
        usable_gib=round(usable, 2),
        usd_per_hour=size.usd(region),
        region=region if region in size.priced_regions else None,
        unusable=sizing.unusable(size),
        share=round(gib / usable, 3) if gib and usable else None,
    )


def _lines(sizes: tuple[Size, ...], arguments: argparse.Namespace, gib: float | None, paper: Paper) -> list[str]:
    lines = []
    if gib:
        way = f"serve {arguments.fits}" if arguments.use == "serve" else f"tune {arguments.fits} by {arguments.use}"
        text = f"{gib:.1f} GiB on one GPU, margin included, to {way}:"
        lines = paper.wrap(text if sizes else f"{text} no size that is known has that")
    if not sizes:
        return lines
    head = ["SIZE", "CLOUD", "GPU", "GPUS", "GIB/GPU", "CUDA", "FILLS", "USD/H", "NOTE"]
    if gib is None:
        head.remove("FILLS")
    rows = [_row(size, with_share=gib is not None) for size in sizes]
    styles = ["dim" if size.unusable or _gone(size) else "" for size in sizes]
    drop = ("NOTE", "CLOUD", "CUDA", "GPUS", "GPU")
    lines += paper.table(head, rows, right=head[3:-1], drop=drop, styles=styles)
    return lines + [paper.paint(line, "dim") for line in paper.wrap(_priced(sizes))]


def _row(size: Size, *, with_share: bool) -> list[str]:
    share = [f"{size.share:.0%}" if size.share is not None else "?"] if with_share else []
    usd = "?" if size.usd_per_hour is None else f"{size.usd_per_hour:.2f}"
    retired = f"retired {size.retired_on}" if size.retired_on else ""
    note = retired or ("not for these images" if size.unusable else "")
    cuda, gpus = size.capability or "-", str(size.gpus or "?")
    return [
        size.name,
        size.cloud,
        size.gpu,
        gpus,
        f"{size.gpu_gib:.0f}" if size.gpu_gib else "?",
        cuda,
        *share,
        usd,
        note,
    ]


def _gone(size: Size) -> bool:
    return size.retired_on is not None and size.retired_on <= datetime.datetime.now(datetime.UTC).date()


def _priced(sizes: tuple[Size, ...]) -> str:
    days = sorted({str(size.priced_on) for size in sizes if size.priced_on and size.usd_per_hour is not None})
    regions = {size.region for size in sizes if size.usd_per_hour is not None}
    where = " and ".join(sorted(f"in {region}" if region else "in the cheapest region" for region in regions))
    return f"USD/H: a node on demand {where}, {', '.join(days)}; an indication, not a bill" if days else ""
