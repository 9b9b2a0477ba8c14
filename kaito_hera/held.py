"""The nodes that are held for a Workspace, what they cost, and what could not be had, as status tells it. Pure."""

import contextlib
import datetime

import pydantic

import presets
from kaito_hera import api, live, status
from kaito_hera.conditions import View
from kaito_hera.nodes import several
from kaito_hera.status import NodesStatus, Refusal

_HOLD = datetime.timedelta(hours=1)
"""A kind of node that was launched and gave nothing is tried last for so long: a cloud that has none has none soon."""
_LATE = frozenset({"ProvisioningFailed", "NodesNotReady"})
_Refusals = pydantic.TypeAdapter(tuple[Refusal, ...])


def nodes(view: View) -> NodesStatus | None:
    """What was asked for, and what it costs: from the first node on, until a release has ended."""
    before, asked, released = view.before.nodes or _inherited(view), view.steps.get("provision-nodes"), _release(view)
    if released:
        return before and before.model_copy(update={"held": False, **_interval(before, released.finished_at)})
    if asked is None or asked.phase == "Skipped":
        return before
    update: dict[str, object] = {}
    candidate = asked.outputs.get("candidate", "")
    if several(view.workspace):
        update["refused"] = _refused(view, before or NodesStatus(), candidate)
    if view.settings.node_provider != "byo":
        update["held"] = True
        if not (before and before.billed_since) and (view.live.nodes or asked.phase == "Succeeded"):
            made = [node["metadata"]["creationTimestamp"] for node in view.live.nodes]
            update["billed_since"] = min(made, default=asked.finished_at)
        if candidate:
            update["usd_per_hour"] = _usd_per_hour(view, candidate)
    elif not several(view.workspace):
        return before
    if candidate:
        update["candidate"] = candidate
    return (before or NodesStatus()).model_copy(update=update)


def _inherited(view: View) -> NodesStatus | None:
    """Our status is written before our finalizer: one that was there first is KAITO's, and so may be some nodes."""
    before, finalizers = view.before, view.workspace.metadata.finalizers
    first = not before.observed_generation and before.workflow is None
    return NodesStatus(inherited=True) if first and api.FINALIZER in finalizers else None


def _release(view: View) -> live.Step | None:
    """The release that has ended well."""
    step = view.steps.get("release")
    return step if step and step.phase == "Succeeded" else None


def _interval(before: NodesStatus, until: str) -> dict[str, object]:
    if not before.billed_since:
        return {}
    interval = status.moment(until) - status.moment(before.billed_since)
    return {"billed_since": "", "billed_seconds": before.billed_seconds + int(interval.total_seconds())}


def _refused(view: View, before: NodesStatus, candidate: str) -> tuple[Refusal, ...]:
    """What the last order said, and its own candidate if that gave no usable nodes."""
    refused = before.refused
    if said := view.steps["provision-nodes"].outputs.get("refused") if candidate else "":
        with contextlib.suppress(pydantic.ValidationError):
            refused = _Refusals.validate_json(said)
    awaited = view.steps.get("await-nodes")
    if candidate and awaited and awaited.phase in {"Failed", "Error"} and awaited.finished_at:
        why = live.reason(awaited.message)
        if why.reason in _LATE:
            until = status.rfc3339(status.moment(awaited.finished_at) + _HOLD)
            late = Refusal(candidate=candidate, reason=why.message, held_until=until)
            return (*(refusal for refusal in refused if refusal.candidate != candidate), late)
    return refused


def _usd_per_hour(view: View, candidate: str) -> float | None:
    """The list price on demand; what spot costs changes by the hour and is not known here."""
    size, _, capacity = candidate.partition("/")
    if capacity == "spot":
        return None
    try:
        price = presets.size(size).usd(view.settings.region)
    except presets.UnknownNameError:
        return None
    return None if price is None else round(price * view.workspace.node_count, 4)
