"""What is true now: each condition has one function, named after it, that answers with a verdict.

A step decides a condition when it ends; live objects decide what can change afterwards. A step that has yet to end
takes nothing back: what was true before an edit stays true, of the generation that it was true of, until something is
seen to be wrong, as a Deployment stays Available while it is Progressing. Summaries over these are in `observe`.
"""

import dataclasses
import datetime
import functools
from typing import Any, NamedTuple

from kaito_hera import intent, live, names, progress, rayservice, status
from kaito_hera.api import Workspace
from kaito_hera.live import Live, Step
from kaito_hera.settings import Settings
from kaito_hera.status import Condition, Satisfied, ServingStatus, Status


class Verdict(NamedTuple):
    """What is said of a condition."""

    status: str
    reason: str
    message: str = ""
    generation: int = 0
    """Generation of the Workspace that it is said of, where that is an earlier one."""


@dataclasses.dataclass(frozen=True)
class View:
    """What the functions look at."""

    workspace: Workspace
    settings: Settings
    live: Live
    before: Status
    """The status so far: what it says stays until something says otherwise."""
    workflow: dict[str, Any] | None
    """The Workflow of the current attempt."""
    steps: dict[str, Step]
    satisfied: Satisfied
    serving: ServingStatus | None = None
    """What the server was rolled out with."""

    @functools.cached_property
    def wanted(self) -> intent.Intent:
        """What the user asks for now."""
        return intent.of(self.workspace)

    @functools.cached_property
    def made_for(self) -> intent.Intent:
        """What the current attempt was made for; nothing where there is no Workflow."""
        return intent.made_for(self.workflow) if self.workflow else intent.Intent()

    @property
    def is_meant(self) -> bool:
        """Whether the current attempt was made for what is asked now, so that its steps speak of that."""
        return self.made_for == self.wanted

    @property
    def is_tuned(self) -> bool:
        """Whether what is to be tuned is, or nothing is to be."""
        return self.satisfied.tune == self.wanted.tune

    @property
    def is_trained(self) -> bool:
        """Whether what is to be tuned is, though perhaps not yet pushed."""
        return self.is_tuned or self.satisfied.trained == intent.trained(self.workspace)

    @property
    def is_updating(self) -> bool:
        """Whether the server that there may be is not, or not where, it is asked to be now."""
        return (self.satisfied.nodes, self.satisfied.serve) != (self.wanted.nodes, self.wanted.serve)

    @property
    def deployment(self) -> dict[str, Any] | None:
        """The server: a Deployment, or a RayService that is read as one."""
        named = {self.workspace.metadata.name, rayservice.name(self.workspace)}
        return next((d for d in self.live.deployments if d["metadata"]["name"] in named), None)


def stamped(before: Status, name: str, verdict: Verdict, *, now: datetime.datetime, generation: int) -> Condition:
    """The verdict as a condition; its time moves only when the status flips."""
    state, reason, message, earlier = verdict
    old = before.condition(name)
    since = old.last_transition_time if old and old.status == state else status.rfc3339(now)
    return Condition.model_validate(
        {
            "type": name,
            "status": state,
            "reason": reason or "Unknown",
            "message": message,
            "lastTransitionTime": since,
            "observedGeneration": earlier or generation,
        }
    )


def preflight_succeeded(view: View) -> Verdict:
    """The checks that need no GPU were passed."""
    return _lasting(view, status.PREFLIGHT_SUCCEEDED, _by_step(view, status.PREFLIGHT_SUCCEEDED, "preflight"))


def node_claim_ready(view: View) -> Verdict:
    """The nodes are launched."""
    if _released(view):
        return _given_back(view)
    if view.satisfied.nodes == view.wanted.nodes:
        return _true(status.NODE_CLAIM_READY)
    return _lasting(view, status.NODE_CLAIM_READY, _by_step(view, status.NODE_CLAIM_READY, "provision-nodes"))


def resource_ready(view: View) -> Verdict:
    """The nodes were usable, and are still there and Ready."""
    if _released(view):
        return _given_back(view)
    ready = {node["metadata"]["name"] for node in view.live.nodes if live.is_ready(node)}
    if view.satisfied.nodes != view.wanted.nodes:
        said = _by_step(view, status.RESOURCE_READY, "await-nodes", passed=False)
        return _lasting(view, status.RESOURCE_READY, said) if len(ready) >= _in_use(view) else said
    if len(ready) >= view.workspace.node_count:
        return _true(status.RESOURCE_READY)
    lost = sorted(set(view.before.worker_nodes) - ready)
    what = f": {', '.join(lost)} not Ready or gone" if lost else ""
    return Verdict("False", "NodesNotReady", f"{len(ready)} of {view.workspace.node_count} nodes are Ready{what}")


def job_started(view: View) -> Verdict:
    """The tuning Job's pod runs or has run, or need not."""
    if view.is_trained:
        return (None if view.is_tuned else _failed(view, "push")) or _true(status.JOB_STARTED)
    attempt = view.before.workflow.attempt if view.before.workflow else 0
    pods = view.live.pods_of("tuning", job=names.job(view.workspace, attempt))
    if pods and pods[-1].get("status", {}).get("phase") in {"Running", "Succeeded", "Failed"}:
        return _dated(view, status.JOB_STARTED, _failed(view, "train") or _true(status.JOB_STARTED))
    if pods and (wrong := live.waiting(pods[-1])):
        return _dated(view, status.JOB_STARTED, Verdict("False", wrong.reason, wrong.message))
    return _by_step(view, status.JOB_STARTED, "train")


def inference_ready(view: View) -> Verdict:
    """Every replica of the server answers now; while a roll-out runs, one does that answered before it."""
    deployment = view.deployment
    if deployment is None:
        return (
            _given_back(view) if _released(view) else _by_step(view, status.INFERENCE_READY, "roll-out", passed=False)
        )
    said = _answering(view, deployment)
    if view.satisfied.serve == view.wanted.serve:
        return said
    step = view.steps.get("roll-out") if view.is_meant else None
    kept = view.before.condition(status.INFERENCE_READY)
    earlier = view.serving.generation if view.serving else 0
    ready, _ = live.replicas(deployment)
    if kept and kept.status == "True" and ready and step and step.phase == "Running":
        return _true(status.INFERENCE_READY)._replace(message=said.message, generation=earlier)
    return said._replace(generation=earlier) if said.status == "True" or step is None else said


def _answering(view: View, deployment: dict[str, Any]) -> Verdict:
    """Whether every replica answers, or what keeps one from it."""
    ready, wanted = live.replicas(deployment)
    if 0 < wanted <= ready:
        return _true(status.INFERENCE_READY)
    if ready < wanted and (refused := live.refused(deployment)):
        return Verdict(
            "False", "PodsRefused", f"{deployment.get('kind', 'Deployment')} {view.workspace.key}: {refused}"
        )
    for pod in view.live.pods_of("serving"):
        if wrong := live.waiting(pod):
            return Verdict("False", wrong.reason, f"pod {pod['metadata']['name']}: {wrong.message}")
    if failed := _failed(view, "roll-out"):
        return failed
    wished = "answer /health" if view.workspace.preset else "are ready"  # by the probes of the user's own pod
    said = "; ".join(filter(None, (f"{ready} of {wanted} replicas {wished}", fetching(view))))
    return Verdict("False", status.PENDING_REASONS[status.INFERENCE_READY], said)


def fetching(view: View) -> str:
    """How the weights of the server come that is rolled out now; empty where that is not known."""
    step = view.steps.get("roll-out")
    return progress.fetching(view.deployment) if view.deployment and step and step.phase == "Running" else ""


def _by_step(view: View, name: str, step_name: str, *, passed: bool = True) -> Verdict:
    """What the step says, or else what an earlier attempt failed of. `passed`: its success makes the condition true."""
    step = view.steps.get(step_name)
    if step and step.phase == "Succeeded" and passed:
        return _dated(view, name, _true(name))
    if failed := _failed(view, step_name):
        return _dated(view, name, failed)
    kept = view.before.condition(name)
    if kept and kept.status != "True" and kept.reason not in {status.RELEASED, status.PENDING_REASONS[name]}:
        return Verdict(kept.status, kept.reason, kept.message, kept.observed_generation)
    doing = f"step {step_name} runs" if step else f"step {step_name} has not begun"
    return Verdict("False", status.PENDING_REASONS[name], doing)


def _dated(view: View, name: str, verdict: Verdict) -> Verdict:
    """What the attempt showed; of an earlier generation, where it was made for what was asked before an edit."""
    kept = view.before.condition(name)
    return verdict if view.is_meant or kept is None else verdict._replace(generation=kept.observed_generation)


def _lasting(view: View, name: str, verdict: Verdict) -> Verdict:
    """What was true stays so while its step has yet to renew it."""
    kept = view.before.condition(name)
    if verdict.reason != status.PENDING_REASONS[name] or kept is None or kept.status != "True":
        return verdict
    return _true(name)._replace(generation=kept.observed_generation)


def _in_use(view: View) -> int:
    """So many nodes are in use while others are asked for."""
    count = view.workspace.node_count
    return min(count, live.replicas(view.deployment)[1]) if view.deployment else count


def _failed(view: View, step_name: str) -> Verdict | None:
    step = view.steps.get(step_name)
    if step is None or step.phase not in {"Failed", "Error"}:
        return None
    why = live.reason(step.message)
    return Verdict("False", why.reason, why.message)


def _released(view: View) -> bool:
    """Whether nodes were given back and not asked for again."""
    if view.satisfied.nodes:
        return False
    if (step := view.steps.get("release")) and step.phase == "Succeeded":
        return True
    asked = view.steps.get("provision-nodes")
    kept = view.before.condition(status.RESOURCE_READY)
    return asked is None and kept is not None and kept.reason == status.RELEASED


def _given_back(view: View) -> Verdict:
    inherited = view.before.nodes is not None and view.before.nodes.inherited  # KAITO's go whoever brings nodes now
    text = "the nodes were given back"
    if view.settings.node_provider == "byo" and not inherited:
        text = "no node is used any more; those that were brought stay where they are"
    if not view.is_tuned and view.is_trained:
        text = f"the adapter is finished, and pushed from its volume: {text}"
    elif view.workspace.tuning and not view.workspace.serves and view.is_tuned:
        text = f"the adapter is pushed and nothing is to be served: {text}"
    return Verdict("False", status.RELEASED, text)


def _true(name: str) -> Verdict:
    return Verdict("True", status.TRUE_REASONS[name])
