"""Which GPU sizes a Workspace may get, in order, and what speaks against them, with what to do instead. Pure.

The one place that judges sizes and memory: preflight raises what is found here, `kaito-hera plan` prints it.
"""

import dataclasses
import datetime
from typing import NamedTuple

import presets
from kaito_hera import errors, loads, models, offers, runtimes
from kaito_hera.api import Metadata, Workspace, annotations
from kaito_hera.findings import Finding
from kaito_hera.loads import Demand
from kaito_hera.settings import Settings
from presets import kernels
from presets.facts import NO_CUDA, Capability
from presets.kernels import Kernels

ON_DEMAND = "on-demand"
_ADVISED = 3  # sizes in place of one that is too small
MIG_USABLE = 0.95
"""Share of a slice's memory that a process gets, as of a card."""


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A kind of node that may be had."""

    field: str
    """Where the Workspace names it."""
    size: presets.Size
    capacity: str
    """spot or on-demand; empty where the user did not say and nobody asks."""
    gpu_gib: float
    """Of what the work gets: one GPU, or the slice of one that `resource.partition` asks for."""
    usable_gib: float
    """What of it a process gets."""
    gpus: int = 1
    """That are worked with, a node's or as many as `resource.partition` asks for; to tune, each has the whole model."""

    @property
    def name(self) -> str:
        """As providers and status have it."""
        return "/".join(part for part in (self.size.name, self.capacity) if part)

    def way(self, demand: Demand) -> int | None:
        """In which of its ways its GPUs are enough; None where in none."""
        return demand.way(self.usable_gib, self.gpus)


def candidates(workspace: Workspace, usual: str = "") -> tuple[Candidate, ...]:
    """Size by size, each with every kind of capacity, in the order in which they are tried; unknown sizes left out.

    `usual`: the capacity where the user named none. None where nodes are brought and no size is named: any GPU will do.
    """
    found: dict[str, Candidate] = {}
    for field, name in _named(workspace):
        try:
            size = presets.size(name)
        except presets.UnknownNameError:
            continue
        whole, usable = _device(workspace, size)
        for capacity in workspace.resource.capacity or (usual,):
            one = Candidate(field, size, capacity, whole, usable, _gpus(workspace, size))
            found.setdefault(one.name, one)
    return tuple(found.values())


def usual(settings: Settings) -> str:
    """The kind of capacity where the user names none; of nodes that are there already nobody asks."""
    return "" if settings.node_provider == "byo" else ON_DEMAND


def unknown(workspace: Workspace) -> list[Finding]:
    """Sizes that nobody knows."""
    found = []
    for field, name in _named(workspace):
        try:
            presets.size(name)
        except presets.UnknownNameError as cause:
            anew = "" if _is_list(field) or not _applied(workspace) else "delete the Workspace and apply it anew"
            found.append(Finding(errors.UnknownInstanceTypeError, field, str(cause), anew))
    return found


def size_findings(
    workspace: Workspace,
    settings: Settings,
    on: datetime.date,
    needs: tuple[Demand, ...] = (),
    region: str | None = None,
) -> list[Finding]:
    """What speaks against the sizes as such: missing, unknown, without kernels, retired by that day.

    What is advised in their place holds the `needs`; prices are the region's.
    """
    named = _named(workspace)
    if not named and settings.node_provider != "byo":
        example = "name the nodes' size, for example Standard_NC24ads_A100_v4"
        return [Finding(errors.InvalidWorkspaceError, "resource.instanceType", "is missing", example)]
    found = unknown(workspace)
    for field, size in {one.field: one.size for one in candidates(workspace)}.items():
        aks = settings.node_provider == "aks"
        fits = offers.able(needs, region=region, cloud="azure" if aks else size.cloud, has=settings.kernels)
        nearest = [one for name in size.instead for one in fits if one.name == name]
        instead = _take(workspace, field, nearest or fits[:1], region)
        if aks and size.cloud != "azure":
            problem = f"{size.name} is no size of Azure's, which agent pools are made of: {size.gpu} of {size.cloud}"
            found.append(Finding(errors.UnsupportedGPUError, field, problem, instead))
            continue
        ours = workspace.preset is not None  # a pod of the user's own has none of our images
        found += _about(settings, size, field=field, instead=instead, on=on, ours=ours)
    return found


def memory_findings(
    workspace: Workspace, settings: Settings, needs: tuple[Demand, ...], region: str | None = None
) -> list[Finding]:
    """Sizes that do not hold what they must; warnings where less is done at once, slowly, or the user says so.

    Of a GPU that is cut, `fitting` measures the slice.
    """
    if workspace.resource.partition and workspace.resource.partition.gib:
        return []
    found: dict[tuple[str, str], Finding] = {}
    for candidate in candidates(workspace):
        for demand in needs:
            if candidate.gpu_gib and (lack := tight(workspace, demand, candidate.usable_gib, candidate.gpus)):
                fits = offers.able(needs, region=region, cloud=candidate.size.cloud, has=settings.kernels)
                size = f"{candidate.size.name} has {candidate.gpu_gib:.0f} GiB per GPU"
                found[candidate.field, demand.verb] = Finding(
                    errors.InsufficientGPUMemoryError,
                    candidate.field,
                    f"{size}, {candidate.usable_gib:.1f} of them usable; {lack.said}",
                    _roomier(workspace, candidate, demand, fits, region) if lack.fatal else "",
                    lack.fatal and not bypassed(workspace),
                )
    return list(found.values())


class Lack(NamedTuple):
    """Too little memory."""

    said: str
    fatal: bool
    """False: less is done at once, or more slowly."""


def tight(workspace: Workspace, demand: Demand, gib: float, gpus: int = 1) -> Lack | None:
    """What of a demand so many GiB on each of so many GPUs do not hold; None where they hold it as asked for."""
    way = demand.way(gib, gpus)
    if way == 0:
        aside = demand.aside(workspace.preset_name, gib, gpus)
        return Lack(aside, fatal=False) if aside else None
    if lacks := demand.lacks(gpus):
        return Lack(lacks, fatal=True)
    at = -1 if way is None else 0
    each = demand.gib_of(demand.taken(gib, gpus), at)
    said = f"to {demand.verb} {workspace.preset_name} ({demand.ways[at].basis}) needs {each:.1f} GiB"
    if way is None:
        return Lack(said + (" at the least" if demand.fewer else ""), fatal=True)
    less = f"{demand.ways[way].basis}: {demand.gib_of(gpus, way):.1f} GiB"
    return Lack(f"{said}; so less is computed at once ({less}), and what is learned is the same", fatal=False)


def number_findings(
    workspace: Workspace, settings: Settings, needs: tuple[Demand, ...], region: str | None = None
) -> list[Finding]:
    """Sizes whose GPUs have no bfloat16, where it is asked for: a server ends there, training takes float16."""
    found: dict[tuple[str, str], Finding] = {}
    for candidate in candidates(workspace):
        size = candidate.size
        for demand in needs:
            if demand.bfloat16 and NO_CUDA < size.compute < offers.BFLOAT16_CAPABILITY:
                could = offers.able(needs, region=region, cloud=size.cloud, has=settings.kernels)
                fits = [one for one in could if one.compute >= offers.BFLOAT16_CAPABILITY]
                take = _take(workspace, candidate.field, fits[:1], region)
                tunes = demand.verb == "tune"
                problem = f"{size.name} has {size.gpu}, capability {size.capability}, which does not compute bfloat16"
                problem += f"; {demand.bfloat16}" + (", and training takes float16 in its place" if tunes else "")
                remedy = "write auto or float16 there" + (f"; or {take}" if take else "")
                used = settings.gpu_capability_check == "refuse" or not unusable(size, settings.kernels)
                found[candidate.field, demand.verb] = Finding(
                    errors.UnsupportedGPUError, candidate.field, problem, remedy, used and not tunes
                )
    return list(found.values())


def bypassed(workspace: Workspace) -> bool:
    """Whether too little memory is to be a warning: the annotation counts by its presence alone."""
    return annotations.BYPASS in workspace.metadata.annotations


def unusable(size: presets.Size, has: Kernels = kernels.PINNED) -> str:
    """Why images that `has` such kernels cannot run on this size; empty when they can."""
    if not has.run_on(size.compute):
        what = f"capability {size.capability}" if size.capability else "which is not CUDA"
        return f"{size.name} has {size.gpu}, {what}; the images {_needs(size.compute, has)}"
    if size.arch != "amd64":
        return f"{size.name} has hosts of {size.arch}; the images are built for amd64"
    return "" if size.gpu_memory_gib else f"{size.name}: how much GPU memory it has is not known"


def _needs(compute: Capability, has: Kernels) -> str:
    """What kernels ask for where a GPU cannot run them."""
    if compute < has.lowest:
        return f"need CUDA capability {kernels.text(has.lowest)} or newer"
    return f"have kernels for CUDA capabilities {has} alone"


def _named(workspace: Workspace) -> list[tuple[str, str]]:
    """Field and name of each size."""
    resource = workspace.resource
    if resource.instance_types:
        return [(f"resource.instanceTypes[{at}]", name) for at, name in enumerate(resource.instance_types)]
    return [("resource.instanceType", resource.instance_type)] if resource.instance_type else []


def _device(workspace: Workspace, size: presets.Size) -> tuple[float, float]:
    """GiB of what the work gets of a node, and what of them is usable."""
    partition = workspace.resource.partition
    if partition and partition.gib:
        return partition.gib, partition.gib * MIG_USABLE
    return size.gib_per_gpu, size.gib_per_gpu * size.usable


def _gpus(workspace: Workspace, size: presets.Size) -> int:
    partition = workspace.resource.partition
    if partition is None:
        return size.gpus
    return 1 if partition.profile else partition.count or 1


def _about(
    settings: Settings, size: presets.Size, *, field: str, instead: str, on: datetime.date, ours: bool
) -> list[Finding]:
    found = []
    if ours and (problem := unusable(size, settings.kernels)):
        refused = settings.gpu_capability_check == "refuse"
        found.append(Finding(errors.UnsupportedGPUError, field, problem, instead, refused))
    if size.retired(on):
        refused = settings.retired_sizes == "refuse"
        problem = f"{size.name} was retired on {size.retired_on}: a cloud has it only where it is left over"
        found.append(Finding(errors.UnsupportedGPUError, field, problem, instead, refused))
    elif size.retired_on:
        problem = f"{size.name} will be retired on {size.retired_on}"
        found.append(Finding(errors.UnsupportedGPUError, field, problem, instead, fatal=False))
    return found


def _roomier(
    workspace: Workspace, candidate: Candidate, demand: Demand, fits: list[presets.Size], region: str | None
) -> str:
    cards = [size for at, size in enumerate(fits) if size.gpu not in {other.gpu for other in fits[:at]}]
    advice = [_take(workspace, candidate.field, cards[:_ADVISED], region)] if fits else []
    advice += [less.advice for less in demand.less if less.gib * loads.MARGIN <= candidate.usable_gib]
    nodes = demand.nodes_for(candidate.usable_gib, candidate.gpus) if runtimes.may_spread(workspace) else None
    if nodes:
        anew = " (delete the Workspace and apply it anew)" if _applied(workspace) else ""
        advice.append(f"set resource.count to {nodes}: so many of these nodes hold it together{anew}")
    if not fits and not nodes:
        model = models.find(workspace)
        other = offers.smaller(model) if model else ""
        such = f", such as {other}" if other else ""
        divides = "nodes" if demand.spread else "GPUs"
        held = "with all GPUs of a node" if demand.spread else "on one GPU"
        advice.append(
            f"no size here holds it {held}, and it is not divided among {divides}: take a smaller model{such}"
        )
    return "; or ".join(advice)


def _take(workspace: Workspace, field: str, sizes: list[presets.Size], region: str | None) -> str:
    """Name other sizes; where the Workspace stands already, say how they can be had."""
    if not sizes:
        return ""
    named = " or ".join(f"{size.name}{offers.price(size, region)}" for size in sizes)
    anew = " (delete the Workspace and apply it anew)" if _applied(workspace) and not _is_list(field) else ""
    return f"take {named} instead{anew}"


def _is_list(field: str) -> bool:
    return field.endswith("]")


def _applied(workspace: Workspace) -> bool:
    """Whether this is an object of a cluster's: then its size is fixed."""
    return workspace.metadata.uid != str(Metadata.model_fields["uid"].default)
