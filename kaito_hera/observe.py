"""The status that follows from what is seen. Pure: the same objects and status before give the same status."""

import contextlib
import dataclasses
import json
from collections.abc import Callable
from typing import Any

from kaito_hera import api, commits, conditions, errors, held, intent, live, names, progress, retry, status
from kaito_hera.api import Workspace
from kaito_hera.conditions import Verdict, View
from kaito_hera.live import Live, Step
from kaito_hera.settings import Settings
from kaito_hera.status import (
    Condition,
    Engine,
    Satisfied,
    ServedAdapter,
    ServingStatus,
    Status,
    StepStatus,
    TuningStatus,
    WorkflowStatus,
)

_LATE = "edited since attempt"
_GONE = errors.AdapterGoneError("").reason
_NEXT = "deadlines of nodes and servers, checkpoints and Secrets count from the next attempt on"


def observe(workspace: Workspace, before: Status, seen: Live, settings: Settings) -> Status:
    """The whole status."""
    workflow = seen.workflow(before.workflow.name) if before.workflow else None
    steps = live.steps(workflow) if workflow else {}
    view = View(workspace, settings, seen, before, workflow, steps, _satisfied(workspace, before, workflow, steps))
    nodes, tuning = held.nodes(view), _tuning(view)
    view = dataclasses.replace(view, serving=_serving(view, tuning.adapter_image if tuning else ""))
    after = before.model_copy(
        update={
            "observed_generation": workspace.metadata.generation,
            "target_node_count": workspace.node_count,
            "worker_nodes": _worker_nodes(view),
            "workflow": _workflow(view),
            "step": _step(view),
            "satisfied": view.satisfied,
            "nodes": nodes,
            "instance_type": held.instance_type(view, nodes),
            "model": commits.model(view),
            "data": commits.data(view),
            "tuning": tuning,
            "serving": view.serving,
            "warnings": _warnings(view),
        }
    )
    verdicts = _facts(view)
    verdicts |= _summary(view, after, verdicts)
    return after.model_copy(update={"conditions": _conditions(view, verdicts), "state": _state(view, verdicts)})


def _satisfied(
    workspace: Workspace, before: Status, workflow: dict[str, Any] | None, steps: dict[str, Step]
) -> Satisfied:
    """A part is satisfied for the hashes that its Workflow was made for, from the moment its step succeeds."""
    wanted, trained = intent.of(workspace).tune, intent.trained(workspace)
    reached = before.satisfied
    if workflow:  # of one that an edit came after, what it left was seen before
        left = trained if intent.made_for(workflow).tune == wanted else reached.trained
        reached = _reached(reached, workflow, steps, left)
    if reached.trained and (reached.trained != trained or reached.tune == wanted):
        reached = reached.model_copy(update={"trained": ""})  # its volume is gone, or another intent's is made
    if reached.tune != wanted:
        return reached.model_copy(update={"tune": ""})  # its adapter is forgotten too, so an edit back tunes again
    return reached


def _reached(reached: Satisfied, workflow: dict[str, Any], steps: dict[str, Step], left: str) -> Satisfied:
    """`left`: the hash of what its training may have left on a volume."""
    made_for = intent.made_for(workflow)
    for name, part, value in (
        ("await-nodes", "nodes", made_for.nodes),
        ("train", *(("trained", left) if _is_left(steps) else ("tune", made_for.tune))),
        ("push", *(("tune", made_for.tune) if _is_pushed(steps) else ("trained", left))),
        ("roll-out", "serve", made_for.serve),
    ):
        if _succeeded(steps, name):
            reached = reached.model_copy(update={part: value})
    if _is_pushed(steps) or ("push" in steps and live.reason(steps["push"].message).reason == _GONE):
        reached = reached.model_copy(update={"trained": ""})
    if _succeeded(steps, "preflight") and steps["preflight"].outputs.get("adapter"):
        reached = reached.model_copy(update={"tune": made_for.tune})
    if _succeeded(steps, "release"):
        reached = reached.model_copy(update={"nodes": "", "serve": ""})
    return reached


def _is_left(steps: dict[str, Step]) -> bool:
    """Whether the training has left its adapter on a volume, and says so by naming none."""
    return "train" in steps and steps["train"].outputs.get("adapter") == ""


def _is_pushed(steps: dict[str, Step]) -> bool:
    return "push" in steps and bool(steps["push"].outputs.get("adapter"))


def _succeeded(steps: dict[str, Step], name: str) -> bool:
    return name in steps and steps[name].phase == "Succeeded"


def _worker_nodes(view: View) -> tuple[str, ...]:
    """Nodes that were made carry our label; those that were brought are known by the step that found them."""
    if view.settings.node_provider == "byo":
        if _succeeded(view.steps, "release"):
            return ()
        if _succeeded(view.steps, "await-nodes"):
            return tuple(sorted(json.loads(view.steps["await-nodes"].outputs.get("nodes") or "[]")))
        return view.before.worker_nodes
    return tuple(sorted(node["metadata"]["name"] for node in view.live.nodes))


def _workflow(view: View) -> WorkflowStatus | None:
    current = view.before.workflow
    if current is None or view.workflow is None:
        return current
    phase = live.phase(view.workflow)
    failed = live.failure(view.workflow) is not None and current.phase not in {"Failed", "Error"}
    place = f"/workflows/{view.settings.namespace}/{current.name}"
    url = f"{view.settings.argo_url}{place}" if view.settings.argo_url else ""
    return current.model_copy(update={"phase": phase, "failures": current.failures + failed, "url": url, "message": ""})


def _step(view: View) -> StepStatus | None:
    running = [step for step in view.steps.values() if step.phase in {"Pending", "Running"}]
    if not running or view.workflow is None or live.is_done(view.workflow):
        return None
    step = running[-1]
    message, percent = "", None
    if step.name == "await-nodes":
        ready = sum(1 for node in view.live.nodes if live.is_ready(node))
        message = f"{ready} of {view.workspace.node_count} nodes are Ready"
    if step.name == "roll-out":
        message = conditions.fetching(view)
    jobs = {"train": names.job, "push": names.push_job}
    if step.name in jobs and (said := _progress(view, jobs[step.name])):
        message, percent = said.message or said.phase, said.percent
    return StepStatus(name=step.name, since=step.started_at, message=message, percent=percent)


def _progress(view: View, named: Callable[[Workspace, int], str] = names.job) -> progress.Progress | None:
    """What the current attempt's Job of that name said last."""
    attempt = view.before.workflow.attempt if view.before.workflow else 0
    return progress.last(view.live, named(view.workspace, attempt))


def _tuning(view: View) -> TuningStatus | None:
    if view.workspace.tuning is None:
        return None
    before = view.before.tuning or TuningStatus()
    said = _progress(view)
    told = said.model_dump(exclude={"phase", "percent", "message"}, exclude_unset=True) if said else {}
    of_an_attempt = {"resumed_from_step": None, "eval_loss": None}  # an earlier one's says nothing of this one
    update = {**of_an_attempt, **told} if said else {}
    outputs = [view.steps[name].outputs for name in ("push", "train", "preflight") if name in view.steps]
    adapter = next(filter(None, (output.get("adapter", "") for output in outputs)), "")
    if view.satisfied.tune != view.wanted.tune:
        update["adapter_image"] = ""  # an earlier intent's adapter says nothing about this one
    elif adapter:
        update["adapter_image"] = adapter
    return before.model_copy(update=update)


def _serving(view: View, tuned: str) -> ServingStatus | None:
    """What the server was rolled out with last, for as long as no other roll-out has ended."""
    reached, before, attempt = view.satisfied.serve, view.before.serving, view.before.workflow
    if not reached:
        return None
    asked = adapters(view.workspace, tuned)
    if not view.is_updating:
        return ServingStatus(generation=view.workspace.metadata.generation, adapters=asked, engine=_engine(view))
    if before is None or reached != view.before.satisfied.serve:  # and edited since: with which adapters nobody knows
        return ServingStatus(generation=attempt.generation if attempt else view.before.observed_generation)
    if view.is_meant and "roll-out" in view.steps:
        kept = {adapter.name for adapter in asked}
        return before.model_copy(update={"adapters": tuple(one for one in before.adapters if one.name in kept)})
    return before


def _engine(view: View) -> Engine | None:
    """What the roll-out noted on the Deployment, which anybody may have edited since."""
    text = (view.deployment or {"metadata": {}})["metadata"].get("annotations", {}).get(names.ENGINE, "")
    with contextlib.suppress(ValueError):
        return Engine.model_validate_json(text)
    return None


def adapters(workspace: Workspace, tuned: str) -> tuple[ServedAdapter, ...]:
    """The adapters that are to be served: the user's and the one that is tuned, known by its digest (`tuned`)."""
    listed = [
        ServedAdapter(name=source.name, strength=strength, source=source.image or (volume.label if volume else ""))
        for source, strength in ((adapter.source, adapter.strength) for adapter in workspace.adapters)
        for volume in (source.volume_source,)
    ]
    own = [ServedAdapter(name=workspace.metadata.name, strength="1.0", source=tuned)] if workspace.tuning else []
    return (*listed, *own)


def _warnings(view: View) -> tuple[str, ...]:
    """What should be known though it stops nothing."""
    said = tuple(text for text in _preflight_warnings(view) if not text.startswith(_LATE))
    attempt, workflow = view.before.workflow, view.workflow
    if attempt is None or attempt.kind == "release" or workflow is None or live.is_done(workflow):
        return said
    late = view.made_for == view.wanted and not retry.is_current(view.workspace, attempt)
    return (*said, f"{_LATE} {attempt.attempt} began: {_NEXT}") if late else said


def _preflight_warnings(view: View) -> tuple[str, ...]:
    """What the last preflight had to say of what is wanted now, not of what was wanted before an edit."""
    current, edited = view.before.workflow, view.before.observed_generation != view.workspace.metadata.generation
    asks = view.workflow is not None and current is not None and current.kind != "release"
    if (asks and view.made_for != view.wanted) or (not asks and edited):
        return ()
    if not _succeeded(view.steps, "preflight"):
        return view.before.warnings
    with contextlib.suppress(ValueError):
        return tuple(str(text) for text in json.loads(view.steps["preflight"].outputs.get("warnings") or "[]"))
    return view.before.warnings


def _facts(view: View) -> dict[str, Verdict]:
    """The conditions that are seen, in the order in which they become true."""
    functions: dict[str, Callable[[View], Verdict]] = {
        status.PREFLIGHT_SUCCEEDED: conditions.preflight_succeeded,
        status.NODE_CLAIM_READY: conditions.node_claim_ready,
        status.RESOURCE_READY: conditions.resource_ready,
    }
    if view.workspace.tuning:
        functions[status.JOB_STARTED] = conditions.job_started
    if view.workspace.serves:
        functions[status.INFERENCE_READY] = conditions.inference_ready
    return {name: function(view) for name, function in functions.items()}


def _summary(view: View, after: Status, facts: dict[str, Verdict]) -> dict[str, Verdict]:
    """The conditions that are derived from the others."""
    answers = status.INFERENCE_READY in facts and facts[status.INFERENCE_READY].status == "True"
    serving = answers and facts[status.RESOURCE_READY].status == "True" and not view.is_updating
    settled = view.is_tuned and (serving or not view.workspace.serves)
    final = retry.stalled(view.workspace, after, view.live)
    resting = settled and (view.workflow is None or live.is_done(view.workflow))
    reconciling = _over(view) if final else _reconciling(view, after, settled=resting)
    pending = Verdict("False", "workspacePending", _first_untrue(facts) or "the last step has not ended")
    if final:
        pending = Verdict("False", "workspaceFailed", f"{final.reason}: {final.message}")
    ready = Verdict("True", "workspaceReady") if settled else pending
    if answers and view.is_updating and view.serving:
        ready = _as_before(view, view.serving.generation, pending.message if final else reconciling.message)
    return {
        status.WORKSPACE_SUCCEEDED: _succeeded_with(view, ready, pending),
        status.WORKSPACE_READY: ready,
        status.RECONCILING: reconciling,
        status.STALLED: Verdict("True", final.reason, final.message) if final else Verdict("False", "NotStalled"),
        status.READY: ready,
    }


def _as_before(view: View, served: int, why: str) -> Verdict:
    """What answers is not taken away by an edit that is under way or failed; which one it is, the generation tells."""
    now = view.workspace.metadata.generation
    return Verdict("True", "workspaceReady", f"generation {served} is served, generation {now} not yet: {why}", served)


def _succeeded_with(view: View, ready: Verdict, pending: Verdict) -> Verdict:
    """Of a tuning: its adapter is pushed. Of what is only served: it is ready."""
    said = ready
    if view.workspace.tuning:
        said = Verdict("True", "") if view.is_tuned else pending
    return said._replace(reason="workspaceSucceeded") if said.status == "True" else said


def _first_untrue(facts: dict[str, Verdict]) -> str:
    return next((f"{name}: {it.reason}: {it.message}" for name, it in facts.items() if it.status != "True"), "")


def _over(view: View) -> Verdict:
    asks = f"kubectl -n {view.workspace.metadata.namespace} annotate workspace {view.workspace.metadata.name}"
    again = f'{asks} --overwrite {api.RETRY_ANNOTATION}="$(date)"'
    return Verdict("False", "Settled", f"edit the Workspace, or, once what is wrong was mended elsewhere: {again}")


def _reconciling(view: View, after: Status, *, settled: bool) -> Verdict:
    if settled:
        return Verdict("False", "Settled")
    why = retry.failure(view.workspace, after, view.live)
    if why and after.workflow and view.workflow:
        when = status.rfc3339(retry.not_before(view.workflow, after.workflow.failures))
        text = f"attempt {after.workflow.attempt} failed, the next starts at {when}: {why.message}"
        return Verdict("True", "RetryPending", text)
    if view.workflow is None and after.workflow and after.workflow.message:
        return Verdict("True", "EngineIncompatible", f"Argo's Workflow cannot be made: {after.workflow.message}")
    if view.workflow and not live.phase(view.workflow):
        age = view.live.now - status.moment(view.workflow["metadata"]["creationTimestamp"])
        if age.total_seconds() > view.settings.argo_timeout_seconds:
            name = view.workflow["metadata"]["name"]
            text = f"Argo has not taken up Workflow {view.settings.namespace}/{name}; is its controller running"
            return Verdict("True", "EngineNotResponding", f"{text} and does it watch this namespace and instanceID?")
    return Verdict("True", "Progressing", f"step {after.step.name}" if after.step else "waiting for the first step")


def _conditions(view: View, verdicts: dict[str, Verdict]) -> tuple[Condition, ...]:
    now, generation = view.live.now, view.workspace.metadata.generation
    found = verdicts.items()
    return tuple(conditions.stamped(view.before, name, said, now=now, generation=generation) for name, said in found)


def _state(view: View, verdicts: dict[str, Verdict]) -> str:
    """KAITO's one word: whoever waits for it is told of an end only where there is one.

    A tuning has Succeeded, where it is to be served, only once its server answers: KAITO serves none, so its word ends
    with the training. Later it is NotReady for as long as that server does not answer. A server stays Ready while an
    edit of it is under way or was refused and what there was before answers; that is told by Reconciling and Stalled.
    """
    ready, tuned = verdicts[status.WORKSPACE_READY].status == "True", view.is_tuned
    if verdicts[status.STALLED].status == "True" and not (ready and tuned):
        return "Failed" if view.workspace.tuning else "NotReady"
    if view.workspace.tuning is None:
        if ready:
            return "Ready"
        return "NotReady" if view.before.state in {"Ready", "NotReady"} else "Pending"
    if tuned and ready:
        return "Succeeded"
    if tuned and view.satisfied.serve == view.wanted.serve:
        return "NotReady"
    started = view.is_meant and verdicts[status.JOB_STARTED].status == "True"
    return "Running" if tuned or started else "Pending"
