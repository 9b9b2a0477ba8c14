"""What nodes cannot do: of several GPU sizes such are left out, and a part of a GPU must be one to be had. Pure."""

import dataclasses

import presets
from kaito_hera import errors, loads, sizing
from kaito_hera.api import Workspace, annotations
from kaito_hera.api.resource import Partition
from kaito_hera.findings import Finding
from kaito_hera.settings import Settings
from kaito_hera.status import Refusal

_SLICE = "resource.partition.profile"
_UNFIT = (errors.UnsupportedGPUError, errors.InsufficientGPUMemoryError)
"""What is said of a size as such; a name that nobody knows is a slip, and stays an error."""


def mild(workspace: Workspace, found: list[Finding]) -> list[Finding]:
    """The same findings, as warnings where they speak against some of the sizes only."""
    left = _left(workspace, found)
    return [dataclasses.replace(f, fatal=f.fatal and not (left and f.error in _UNFIT)) for f in found]


def left_out(workspace: Workspace, settings: Settings, found: list[Finding]) -> tuple[Refusal, ...]:
    """The kinds of node that are not to be tried, with the reason; none where nothing would be left."""
    if not _left(workspace, found):
        return ()
    reasons = {f.field: str(f) for f in reversed(found) if f.fatal and f.error in _UNFIT}
    return tuple(
        Refusal(candidate=candidate.name, reason=reasons[candidate.field])
        for candidate in sizing.candidates(workspace, sizing.usual(settings))
        if candidate.field in reasons
    )


def findings(
    workspace: Workspace, settings: Settings, needs: tuple[loads.Demand, ...], region: str | None = None
) -> list[Finding]:
    """What speaks against the nodes for what is to be done on them."""
    memory = sizing.memory_findings(workspace, settings, needs, region)
    numbers = sizing.number_findings(workspace, settings, needs, region)
    return [*memory, *numbers, *_of_partition(workspace, settings, needs)]


def _of_partition(workspace: Workspace, settings: Settings, needs: tuple[loads.Demand, ...]) -> list[Finding]:
    """What speaks against `resource.partition`, and what is said of nodes you bring that is for new ones only."""
    found: list[Finding] = []
    brought = settings.node_provider == "byo"
    if brought and annotations.IMAGE_FAMILY in workspace.metadata.annotations:
        field = f"metadata.annotations[{annotations.IMAGE_FAMILY}]"
        problem = "has no effect on nodes you bring: it is the operating system of new ones"
        found.append(Finding(errors.InvalidWorkspaceError, field, problem, fatal=False))
    partition = workspace.resource.partition
    if partition is None:
        return found
    if not brought:
        problem = "agent pools are made with whole GPUs that are not cut; a part of one can be had on nodes you bring"
        remedy = "take partition out, or let the platform team set nodeProvider: byo"
        found.append(Finding(errors.InvalidWorkspaceError, "resource.partition", problem, remedy))
    elif partition.count:
        found += _too_many(workspace, partition.count)
    elif partition.gib:
        found += _never_cut(workspace, partition) or _too_small(workspace, partition, needs)
    return found


def _never_cut(workspace: Workspace, partition: Partition) -> list[Finding]:
    """Slices that the named GPUs cannot be cut into."""
    return [
        Finding(
            errors.InvalidWorkspaceError,
            _SLICE,
            f"{candidate.size.name} has {candidate.size.gpu}, from which no slice {partition.profile} can be cut",
            "take one that `nvidia-smi mig -lgip` lists on that node, or leave partition out for a whole GPU",
        )
        for candidate in sizing.candidates(workspace)
        if not _is_cut(candidate.size, partition.gib or 0.0)
    ]


def _is_cut(size: presets.Size, gib: float) -> bool:
    """A100, A30 and what came after for data centres have MIG; a card whose memory is not known is believed."""
    capable = size.compute == (8, 0) or size.compute >= (9, 0)
    return capable and (not size.gib_per_gpu or gib <= size.gib_per_gpu + 1)


def _too_many(workspace: Workspace, count: int) -> list[Finding]:
    return [
        Finding(
            errors.InvalidWorkspaceError,
            "resource.partition.count",
            f"{count} GPUs are asked for on each node, {candidate.size.name} has {candidate.size.gpus}",
            f"ask for at most {candidate.size.gpus}",
        )
        for candidate in sizing.candidates(workspace)
        if 0 < candidate.size.gpus < count
    ]


def _too_small(workspace: Workspace, partition: Partition, needs: tuple[loads.Demand, ...]) -> list[Finding]:
    gib = partition.gib
    assert gib is not None, "asked of slices only"
    return [
        Finding(
            errors.InsufficientGPUMemoryError,
            _SLICE,
            f"a slice {partition.profile} has {gib:.0f} GiB; {lack.said}",
            "take a larger slice, or leave partition out for a whole GPU" if lack.fatal else "",
            lack.fatal and not sizing.bypassed(workspace),
        )
        for demand in needs
        if (lack := sizing.tight(workspace, demand, gib * sizing.MIG_USABLE))
    ]


def _left(workspace: Workspace, found: list[Finding]) -> set[str]:
    """Fields of the sizes against which nothing speaks; what a slice does not hold, it holds on none of them."""
    bad = {finding.field for finding in found if finding.fatal and finding.error in _UNFIT}
    return set() if _SLICE in bad else {candidate.field for candidate in sizing.candidates(workspace)} - bad
