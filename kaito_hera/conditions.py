"""What is true now: each condition has one function, named after it, that answers (status, reason, message).

A step decides a condition while it runs and when it fails; live objects decide what can change afterwards. Summaries
over these are in `observe`.
"""

import dataclasses
import datetime
from typing import Any

from kaito_hera import intent, live, names, status
from kaito_hera.api import Workspace
from kaito_hera.live import Live, Step
from kaito_hera.settings import Settings
from kaito_hera.status import Condition, Satisfied, Status

Verdict = tuple[str, str, str]
"""Status, reason and message of a condition."""


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

    @property
    def wanted(self) -> intent.Intent:
        """What the user asks for now."""
        return intent.of(self.workspace)

    @property
    def made_for(self) -> intent.Intent:
        """What the current attempt was made for; nothing where there is no Workflow."""
        return intent.made_for(self.workflow) if self.workflow else intent.Intent()

    @property
    def deployment(self) -> dict[str, Any] | None:
        """The server."""
        return next((d for d in self.live.deployments if d["metadata"]["name"] == self.workspace.metadata.name), None)


def stamped(before: Status, name: str, verdict: Verdict, *, now: datetime.datetime, generation: int) -> Condition:
    """The verdict as a condition; its time moves only when the status flips."""
    state, reason, message = verdict
    old = before.condition(name)
    since = old.last_transition_time if old and old.status == state else status.rfc3339(now)
    return Condition.model_validate(
        {
            "type": name,
            "status": state,
            "reason": reason or "Unknown",
            "message": message,
            "lastTransitionTime": since,
            "observedGeneration": generation,
        }
    )


def preflight_succeeded(view: View) -> Verdict:
    """The checks that need no GPU were passed."""
    return _by_step(view, status.PREFLIGHT_SUCCEEDED, "preflight")


def node_claim_ready(view: View) -> Verdict:
    """The nodes are launched."""
    if _released(view):
        return _given_back(view)
    if view.satisfied.nodes == view.wanted.nodes:
        return _true(status.NODE_CLAIM_READY)
    return _by_step(view, status.NODE_CLAIM_READY, "provision-nodes")


def resource_ready(view: View) -> Verdict:
    """The nodes were usable, and are still there and Ready."""
    if _released(view):
        return _given_back(view)
    if view.satisfied.nodes != view.wanted.nodes:
        return _by_step(view, status.RESOURCE_READY, "await-nodes", passed=False)
    ready = {node["metadata"]["name"] for node in view.live.nodes if live.is_ready(node)}
    if len(ready) >= view.workspace.node_count:
        return _true(status.RESOURCE_READY)
    lost = sorted(set(view.before.worker_nodes) - ready)
    what = f": {', '.join(lost)} not Ready or gone" if lost else ""
    return "False", "NodesNotReady", f"{len(ready)} of {view.workspace.node_count} nodes are Ready{what}"


def job_started(view: View) -> Verdict:
    """The tuning Job's pod runs or has run, or need not."""
    if view.satisfied.tune == view.wanted.tune:
        return _true(status.JOB_STARTED)
    attempt = view.before.workflow.attempt if view.before.workflow else 0
    pods = view.live.pods_of("tuning", job=names.job(view.workspace, attempt))
    if pods and pods[-1].get("status", {}).get("phase") in {"Running", "Succeeded", "Failed"}:
        failed = _failed(view, "train")
        return failed or _true(status.JOB_STARTED)
    if pods and (wrong := live.waiting(pods[-1])):
        return "False", wrong.reason, wrong.message
    return _by_step(view, status.JOB_STARTED, "train")


def inference_ready(view: View) -> Verdict:
    """Every replica of the server answers now."""
    deployment = view.deployment
    if deployment is None:
        return (
            _given_back(view) if _released(view) else _by_step(view, status.INFERENCE_READY, "roll-out", passed=False)
        )
    ready, wanted = live.replicas(deployment)
    if 0 < wanted <= ready:
        return _true(status.INFERENCE_READY)
    if ready < wanted and (refused := live.refused(deployment)):
        return "False", "PodsRefused", f"Deployment {view.workspace.key}: {refused}"
    for pod in view.live.pods_of("serving"):
        if wrong := live.waiting(pod):
            return "False", wrong.reason, f"pod {pod['metadata']['name']}: {wrong.message}"
    if failed := _failed(view, "roll-out"):
        return failed
    wished = "answer /health" if view.workspace.preset else "are ready"  # by the probes of the user's own pod
    return "False", status.PENDING_REASONS[status.INFERENCE_READY], f"{ready} of {wanted} replicas {wished}"


def _by_step(view: View, name: str, step_name: str, *, passed: bool = True) -> Verdict:
    """What the step says, or else what an earlier attempt failed of. `passed`: its success makes the condition true."""
    step = view.steps.get(step_name)
    if step and step.phase == "Succeeded" and passed:
        return _true(name)
    if failed := _failed(view, step_name):
        return failed
    kept = view.before.condition(name)
    if kept and kept.status != "True" and kept.reason not in {status.RELEASED, status.PENDING_REASONS[name]}:
        return kept.status, kept.reason, kept.message
    doing = f"step {step_name} runs" if step else f"step {step_name} has not begun"
    return "False", status.PENDING_REASONS[name], doing


def _failed(view: View, step_name: str) -> Verdict | None:
    step = view.steps.get(step_name)
    if step is None or step.phase not in {"Failed", "Error"}:
        return None
    why = live.reason(step.message)
    return "False", why.reason, why.message


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
    if view.settings.node_provider == "byo" and not inherited:
        return "False", status.RELEASED, "no node is used any more; those that were brought stay where they are"
    return "False", status.RELEASED, "the nodes were given back"


def _true(name: str) -> Verdict:
    return "True", status.TRUE_REASONS[name], ""
