"""Which GPU sizes a Workspace may get, in order, what one of their GPUs must hold, and what speaks against it. Pure.

The one place that judges sizes and memory: preflight raises what is found here, `kaito-hera plan` prints it. A
training_config is known here by its numbers alone (`Batch`): whoever reads one is above.
"""

import dataclasses
import datetime
from typing import Literal

import presets
from kaito_hera import errors
from kaito_hera.api import Metadata, Workspace, annotations
from kaito_hera.findings import Finding
from kaito_hera.settings import Settings
from presets import memory

MINIMUM_CAPABILITY = (7, 5)
"""Lowest CUDA compute capability that the images' torch has kernels for."""
MARGIN = memory.MARGIN
"""What a need is multiplied with before it is held against a GPU."""

ON_DEMAND = "on-demand"
MIG_USABLE = 0.95
"""Share of a slice's memory that a process gets, as of a card."""


@dataclasses.dataclass(frozen=True)
class Batch:
    """The numbers of a training_config that memory follows from; by default those of an empty one."""

    rows: int = 2
    """Rows at once."""
    length: int = 2048
    """Tokens that a row is cut at."""
    rank: int = 8
    recompute: bool = True
    """Activations are computed again for the backward pass."""
    stored: str | None = None
    """In how many bits qlora keeps the base model, as a key of memory.BYTES; None for its own default."""

    @property
    def tokens(self) -> int:
        """Tokens at once, at most."""
        return self.rows * self.length


@dataclasses.dataclass(frozen=True)
class Demand:
    """What one GPU must hold to do one thing with the model."""

    verb: Literal["tune", "serve"]
    basis: str
    """The numbers that it follows from, for people."""
    need: memory.Need

    @property
    def gib(self) -> float:
        """With the margin."""
        return self.need.gib * MARGIN


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

    @property
    def name(self) -> str:
        """As providers and status have it."""
        return "/".join(part for part in (self.size.name, self.capacity) if part)

    def holds(self, demand: Demand) -> bool:
        """Whether one GPU of it is enough."""
        return demand.gib <= self.usable_gib


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
            one = Candidate(field, size, capacity, whole, usable)
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


def demands(workspace: Workspace, model: presets.Preset, batch: Batch | None, context: int = 0) -> tuple[Demand, ...]:
    """What is asked of one GPU: to tune, if a batch says how, and to serve, with `context` tokens if they are given."""
    found = []
    if workspace.tuning and batch:
        found.append(tune(model, workspace.tuning.method, batch))
    if workspace.serves:
        found.append(serve(model, context))
    return tuple(found)


def tune(model: presets.Preset, method: str, batch: Batch) -> Demand:
    """The demand of a tuning run."""
    stored = batch.stored if method == "qlora" else None
    need = memory.tuning(model, method, tokens=batch.tokens, rank=batch.rank, recompute=batch.recompute, stored=stored)
    rows = f"{batch.rows} row{'s' if batch.rows > 1 else ''} of {batch.length:,} tokens"
    kept = "" if batch.recompute else ", activations kept"
    return Demand("tune", f"{method}, rank {batch.rank}, {rows}{kept}", need)


def serve(model: presets.Preset, context: int = 0) -> Demand:
    """The demand of a server with a cache for `context` tokens, by default as many as KAITO's estimator takes."""
    tokens = context or min(2048, model.context_limit)
    return Demand("serve", f"cache for {tokens:,} tokens", memory.serving(model, context=tokens))


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
        able = [other for other in map(presets.size, size.instead) if memory.fits(_most(needs), other)]
        able = able or cheapest(_most(needs), region=region, cloud=size.cloud)[:1]
        instead = _take(workspace, field, able, region)
        ours = workspace.preset is not None  # a pod of the user's own has none of our images
        found += _about(settings, size, field=field, instead=instead, on=on, ours=ours)
    return found


def memory_findings(workspace: Workspace, needs: tuple[Demand, ...], region: str | None = None) -> list[Finding]:
    """Sizes of which one GPU does not hold what it must; warnings where the user's annotation says so."""
    found: dict[tuple[str, str], Finding] = {}
    for candidate in candidates(workspace):
        for demand in needs:
            if candidate.gpu_gib and not candidate.holds(demand):
                found[candidate.field, demand.verb] = Finding(
                    errors.InsufficientGPUMemoryError,
                    candidate.field,
                    f"{candidate.size.name} has {candidate.gpu_gib:.0f} GiB per GPU, {candidate.usable_gib:.1f} of them"
                    f" usable; to {demand.verb} {workspace.preset_name} ({demand.basis}) needs {demand.gib:.1f} GiB",
                    _roomier(workspace, candidate, needs, demand.verb, region),
                    not bypassed(workspace),
                )
    return list(found.values())


def bypassed(workspace: Workspace) -> bool:
    """Whether too little memory is to be a warning: the annotation counts by its presence alone."""
    return annotations.BYPASS in workspace.metadata.annotations


def unusable(size: presets.Size) -> str:
    """Why the images cannot run on this size; empty when they can."""
    if size.compute < MINIMUM_CAPABILITY:
        lowest = ".".join(str(part) for part in MINIMUM_CAPABILITY)
        has = f"capability {size.capability}" if size.capability else "which is not CUDA"
        return f"{size.name} has {size.gpu}, {has}; the images need CUDA capability {lowest} or newer"
    if size.arch != "amd64":
        return f"{size.name} has hosts of {size.arch}; the images are built for amd64"
    return "" if size.gpu_memory_gib else f"{size.name}: how much GPU memory it has is not known"


def cheapest(gib: float, *, region: str | None = None, cloud: str = "azure") -> list[presets.Size]:
    """The sizes of a cloud of which one GPU holds that much and a margin, and which the images can use."""
    return memory.cheapest(gib, region=region, minimum=MINIMUM_CAPABILITY, cloud=cloud)


def price(size: presets.Size, region: str | None = None) -> str:
    """Dollars per hour in parentheses, for behind a name; empty where not known."""
    usd = size.usd(region)
    return "" if usd is None else f" ({usd:.2f} USD/h)"


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


def _most(needs: tuple[Demand, ...]) -> float:
    """GiB of the largest, without the margin."""
    return max((demand.need.gib for demand in needs), default=0.0)


def _about(
    settings: Settings, size: presets.Size, *, field: str, instead: str, on: datetime.date, ours: bool
) -> list[Finding]:
    found = []
    if ours and (problem := unusable(size)):
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
    workspace: Workspace, candidate: Candidate, needs: tuple[Demand, ...], verb: str, region: str | None
) -> str:
    able = cheapest(_most(needs), region=region, cloud=candidate.size.cloud)
    advice = [_take(workspace, candidate.field, able[:1], region)] if able else []
    advice += ["lower per_device_train_batch_size or max_length"] if verb == "tune" else []
    if not able:
        advice.append("no size here holds it on one GPU, and one is all that is used; take a smaller model")
    return "; or ".join(advice)


def _take(workspace: Workspace, field: str, sizes: list[presets.Size], region: str | None) -> str:
    """Name other sizes; where the Workspace stands already, say how they can be had."""
    if not sizes:
        return ""
    named = " or ".join(f"{size.name}{price(size, region)}" for size in sizes)
    anew = " (delete the Workspace and apply it anew)" if _applied(workspace) and not _is_list(field) else ""
    return f"take {named} instead{anew}"


def _is_list(field: str) -> bool:
    return field.endswith("]")


def _applied(workspace: Workspace) -> bool:
    """Whether this is an object of a cluster's: then its size is fixed."""
    return workspace.metadata.uid != str(Metadata.model_fields["uid"].default)
