"""Which of the kinds of node that would do becomes the Workspace's: tried in the user's order until one is launched.

What each attempt learns travels to the next in status: a kind that was launched and then gave no nodes is tried last
for an hour, so that every kind gets its turn; one whose GPUs the images cannot use is left out.
"""

import dataclasses
import datetime
from functools import partial
from typing import Any

from kaito_hera import cluster as clusters
from kaito_hera import errors, names, nodes
from kaito_hera.nodes import Order, Want, disk, gpus, readiness
from kaito_hera.run import Run
from kaito_hera.status import Refusal, moment


@dataclasses.dataclass(frozen=True)
class Ordered:
    """What was launched, and why nothing that the user would rather have had."""

    order: Order
    refused: tuple[Refusal, ...] = ()


def order(
    run: Run, *, known: tuple[Refusal, ...] = (), left_out: tuple[Refusal, ...] = (), keep: bool = False
) -> Ordered:
    """Launch the first kind of node that can be had; raises what was said of the only one, or of all.

    `known`: what earlier attempts found. `left_out`: what preflight found not to fit. `keep`: nodes that were brought
    and are in use stay, whichever are preferred by now.
    """
    small = {refusal.candidate for refusal in left_out}
    wants = tuple(want for want in run.candidates if want.candidate not in small)
    said = _said(wants, known)
    _pass_unfit(wants, said)
    if keep:
        wants = tuple(dataclasses.replace(want, preferred=()) for want in wants)
    if len(wants) == 1:
        return Ordered(_ask(run, wants[0]), left_out)
    found = _first(run, wants, said)
    return Ordered(found.order, (*left_out, *found.refused))


def tidy(run: Run) -> None:
    """Begin to give back nodes of earlier kinds, now that the server has moved: what is asked for may be edited.

    What cannot be given back now is left to the next order, or to the release.
    """
    try:
        run.provider.drop_others(run.want)
    except errors.ProvisioningFailedError as cause:
        print(f"nodes of earlier kinds are still there: {cause}", flush=True)


def expect(run: Run) -> None:
    """Raise NoNodesMatchError where nodes are brought and too few fit: that is known at once, and nothing is taken."""
    if not run.provider.makes_nodes:
        order(run)


def _said(wants: tuple[Want, ...], known: tuple[Refusal, ...]) -> dict[str, Refusal]:
    """What is known by candidate; what the images cannot use is so of a size, whatever the capacity."""
    unfit = {_size(refusal.candidate): refusal for refusal in known if refusal.unfit}
    kinds = [(want.candidate, unfit[_size(want.candidate)]) for want in wants if _size(want.candidate) in unfit]
    said = {refusal.candidate: refusal for refusal in known if _is_held(refusal)}
    return said | {candidate: refusal.model_copy(update={"candidate": candidate}) for candidate, refusal in kinds}


def _size(candidate: str) -> str:
    return candidate.partition("/")[0]


def _pass_unfit(wants: tuple[Want, ...], said: dict[str, Refusal]) -> None:
    """Nodes of some kind are of use, as far as is known."""
    unfit = [refusal for want in wants if (refusal := said.get(want.candidate)) and refusal.unfit]
    if len(unfit) == len(wants):
        every = "; ".join(f"{refusal.candidate}: {refusal.reason}" for refusal in unfit)
        small = all(disk.is_meant(refusal.reason) for refusal in unfit)  # status keeps the words alone
        kind = errors.InsufficientDiskError if small else errors.UnsupportedGPUError
        way = "edit resource.instanceTypes, or annotate kaito.sh/retry once nodes were changed"
        raise kind(f"none of {len(wants)} kinds of node can be used: {every}; {way}")


def _first(run: Run, wants: tuple[Want, ...], said: dict[str, Refusal]) -> Ordered:
    there = run.provider.standing(wants)
    if mine := next((want for want in wants if want.candidate in there and _works(run, want)), None):
        _pass_unfit((mine,), said)
        return Ordered(_ask(run, mine), tuple(said.values()))
    turn = []
    for want in wants:
        wrong = there.get(want.candidate)
        if wrong or (wrong == "" and want.candidate in said):  # it costs, gives nothing, and may hold another's quota
            run.provider.drop(want, still_wanted=run.still_wanted)
            said.setdefault(want.candidate, Refusal(candidate=want.candidate, reason=wrong))
        elif not (want.candidate in said and said[want.candidate].unfit):
            turn.append(want)
    turn.sort(key=lambda want: (want.candidate not in there, want.candidate in said))
    return _until_launched(run, wants, turn, said)


def _until_launched(run: Run, wants: tuple[Want, ...], turn: list[Want], said: dict[str, Refusal]) -> Ordered:
    failed: list[errors.KaitoError] = []
    for want in turn:
        try:
            launched = _ask(run, want)
        except (errors.InvalidWorkspaceError, errors.NoNodesMatchError, nodes.RefusedError) as cause:
            print(f"{want.candidate}: {cause}", flush=True)
            failed.append(cause)
            said[want.candidate] = Refusal(candidate=want.candidate, reason=str(cause))
        else:
            return Ordered(launched, tuple(said[w.candidate] for w in wants if w is not want and w.candidate in said))
    kinds = {type(cause) for cause in failed} - {nodes.RefusedError}
    kind = kinds.pop() if len(kinds) == 1 and len(failed) == len(wants) else errors.ProvisioningFailedError
    every = "; ".join(f"{want.candidate}: {said[want.candidate].reason}" for want in wants)
    raise kind(f"none of {len(wants)} kinds of node can be had: {every}")


def _ask(run: Run, want: Want) -> Order:
    ready = partial(readiness.any_ready, run, want)
    return run.provider.order(want, still_wanted=run.still_wanted, any_ready=ready)


def _is_held(refusal: Refusal) -> bool:
    return bool(refusal.held_until) and moment(refusal.held_until) > datetime.datetime.now(datetime.UTC)


def _works(run: Run, want: Want) -> bool:
    """Whether a pod of the Workspace holds a GPU on a node of this kind: its server, for one."""
    placement = run.provider.placement(want)
    found: list[dict[str, Any]] = run.cluster.items(clusters.NODE, labels=clusters.selector(placement.labels))
    of_this_kind = {node["metadata"]["name"] for node in found if placement.allows(node)}
    own = run.cluster.items(clusters.POD, labels=f"{names.UID}={want.uid}")
    return any(pod["spec"].get("nodeName") in of_this_kind for pod in gpus.running(own) if gpus.of(pod, want.device))
