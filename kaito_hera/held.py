"""The nodes that are held for a Workspace, what they cost, and what could not be had, as status tells it. Pure."""

import contextlib
import datetime

import pydantic

import presets
from kaito_hera import api, live, retry, status
from kaito_hera.conditions import View
from kaito_hera.nodes import SIZE, several
from kaito_hera.status import NodesStatus, Refusal

_HOLD = datetime.timedelta(hours=1)
"""A kind of node that gave nothing, or was taken away, is tried last for so long: what is short stays short a while."""
_UNFIT = "UnsupportedNode"
_LATE = frozenset({"ProvisioningFailed", "NodesNotReady", _UNFIT})
_Refusals = pydantic.TypeAdapter(tuple[Refusal, ...])


def nodes(view: View) -> NodesStatus | None:
    """What was asked for, and what it costs: from the first node on, until a release has ended."""
    found, attempt = _nodes(view), view.before.workflow
    if found is None or attempt is None or retry.is_current(view.workspace, attempt):
        return found
    return found.model_copy(update={"refused": tuple(one for one in found.refused if not one.unfit)})


def _nodes(view: View) -> NodesStatus | None:
    before, asked, released = view.before.nodes or _inherited(view), view.steps.get("provision-nodes"), _release(view)
    if released:
        return before and _closed(before, released.finished_at).model_copy(update={"held": False})
    brought, choice = view.settings.node_provider == "byo", several(view.workspace)
    if asked is None or asked.phase == "Skipped" or (brought and not choice):
        return before
    after, candidate = before or NodesStatus(), asked.outputs.get("candidate", "") if asked.phase == "Succeeded" else ""
    if choice:
        after = after.model_copy(update={"refused": _refused(view, after, candidate)})
    if not brought:
        after = _billed(view, after, asked, candidate)
    return after.model_copy(update={"candidate": candidate}) if candidate else after


def instance_type(view: View, nodes: NodesStatus | None) -> str:
    """The GPU size that was asked for, or had of several, or that brought nodes are of; as before if none is seen."""
    sizes = {node["metadata"].get("labels", {}).get(SIZE, "") for node in view.live.nodes} - {""}
    had = nodes.candidate.partition("/")[0] if nodes else ""
    return view.workspace.resource.instance_type or had or ", ".join(sorted(sizes)) or view.before.instance_type


def _billed(view: View, nodes: NodesStatus, asked: live.Step, candidate: str) -> NodesStatus:
    if candidate:
        nodes = _priced(view, nodes, asked, candidate)
    since = nodes.billed_since
    if not since and (view.live.nodes or asked.phase == "Succeeded"):
        made = [node["metadata"]["creationTimestamp"] for node in view.live.nodes]
        since = min(made, default=asked.finished_at)
    return nodes.model_copy(update={"held": True, "billed_since": since})


def _priced(view: View, nodes: NodesStatus, asked: live.Step, candidate: str) -> NodesStatus:
    """At the price of what was ordered last; what ran before that keeps its own."""
    price = usd_per_hour(candidate, view.workspace.node_count, view.settings.region)
    is_new = candidate != nodes.candidate
    meant = view.made_for.nodes == view.wanted.nodes  # an edit of the count costs nothing before it is ordered
    if not is_new and (price == nodes.usd_per_hour or not meant):
        return nodes
    if nodes.candidate and nodes.billed_since:
        since = max(nodes.billed_since, asked.finished_at, key=status.moment)
        nodes = _closed(nodes, since).model_copy(update={"billed_since": since})
    return nodes.model_copy(update={"usd_per_hour": price})


def _inherited(view: View) -> NodesStatus | None:
    """Our status is written before our finalizer: one that was there first is KAITO's, and so may be some nodes."""
    before, finalizers = view.before, view.workspace.metadata.finalizers
    first = not before.observed_generation and before.workflow is None
    return NodesStatus(inherited=True) if first and api.FINALIZER in finalizers else None


def _release(view: View) -> live.Step | None:
    """The release that has ended well."""
    step = view.steps.get("release")
    return step if step and step.phase == "Succeeded" else None


def _closed(nodes: NodesStatus, until: str) -> NodesStatus:
    """With the interval that runs added, at its own price, to those that have ended."""
    if not nodes.billed_since:
        return nodes
    seconds = int((status.moment(until) - status.moment(nodes.billed_since)).total_seconds())
    update: dict[str, object] = {"billed_since": "", "billed_seconds": nodes.billed_seconds + seconds}
    if nodes.usd_per_hour is not None:
        usd = nodes.billed_usd + seconds / 3600 * nodes.usd_per_hour
        update |= {"priced_seconds": nodes.priced_seconds + seconds, "billed_usd": round(usd, 4)}
    return nodes.model_copy(update=update)


def _refused(view: View, before: NodesStatus, candidate: str) -> tuple[Refusal, ...]:
    """What the last order said, and its own candidate if that gave no usable nodes."""
    refused = before.refused
    if said := view.steps["provision-nodes"].outputs.get("refused") if candidate else "":
        with contextlib.suppress(pydantic.ValidationError):
            refused = _Refusals.validate_json(said)
    for name, reasons in (("await-nodes", _LATE), ("train", live.TAKEN)):
        step = view.steps.get(name)
        if candidate and step and step.phase in {"Failed", "Error"} and step.finished_at:
            why = live.reason(step.message)
            if why.reason in reasons:
                unfit = why.reason == _UNFIT
                until = "" if unfit else status.rfc3339(status.moment(step.finished_at) + _HOLD)
                late = Refusal(candidate=candidate, reason=why.message, held_until=until, unfit=unfit)
                return (*(refusal for refusal in refused if refusal.candidate != candidate), late)
    return refused


def usd_per_hour(candidate: str, count: int, region: str | None) -> float | None:
    """The list price on demand of so many nodes; what spot costs changes by the hour and is not known here."""
    size, _, capacity = candidate.partition("/")
    if capacity == "spot":
        return None
    try:
        price = presets.size(size).usd(region)
    except presets.UnknownNameError:
        return None
    return None if price is None else round(price * count, 4)
