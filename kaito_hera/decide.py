"""What to do next for one Workspace. Pure: from its status and the live objects to a list of actions.

Level-triggered: it never asks what happened, only what is there. A Workspace's way is read top to bottom in
`_living` and, once it is being deleted, in `_deleting`.
"""

import datetime

from kaito_hera import api, intent, live, names, rayservice, retry, status
from kaito_hera.actions import (
    Action,
    AddFinalizer,
    Create,
    DeleteJob,
    DeleteWorkflow,
    LookAgain,
    ReleaseWithoutArgo,
    RemoveFinalizer,
    SetDeadline,
    Start,
    Stop,
)
from kaito_hera.api import Workspace
from kaito_hera.intent import Parts
from kaito_hera.live import Live, Object
from kaito_hera.settings import Settings
from kaito_hera.status import Status

_WORKFLOW_LABEL = "workflows.argoproj.io/workflow"
_EVER = datetime.datetime.min.replace(tzinfo=datetime.UTC)
_SOON = 5.0
"""Seconds until the next look at something that is about to go away; its event is likely to come first."""
_PATIENCE = 60.0
"""Seconds that a deletion waits for old pods: a dead node keeps them for ever, and its price runs on."""
_CALM = datetime.timedelta(seconds=60)
"""What was reached may be away for so long before it is bought again: a kubelet restarts faster."""


def decide(workspace: Workspace, current: Status, seen: Live, settings: Settings) -> list[Action]:
    """The actions that bring this Workspace one step on; `current` is the status as it is now observed."""
    if workspace.metadata.deletion_timestamp:
        return _deleting(workspace, current, seen, settings)
    if api.FINALIZER not in workspace.metadata.finalizers:
        return [AddFinalizer()]
    return _living(workspace, current, seen, settings)


def missing(workspace: Workspace, current: Status, seen: Live) -> Parts:
    """The parts of what is asked for that reality does not have.

    A finished adapter is pushed before anything else: it may take long, and needs no nodes.
    Nodes that were taken away are asked for anew, though their objects may stand for a while: perhaps as another kind.
    """
    wanted, reached = intent.of(workspace), current.satisfied
    tune = reached.tune != wanted.tune
    if tune and reached.trained == intent.trained(workspace):
        return Parts(push=True)
    lost = sum(1 for node in seen.nodes if live.is_ready(node)) < workspace.node_count
    why = retry.failure(workspace, current, seen)
    taken = why is not None and why.reason in live.TAKEN
    nodes = (tune or workspace.serves) and (reached.nodes != wanted.nodes or lost or taken)
    serve = workspace.serves and (tune or nodes or reached.serve != wanted.serve or not _stands(workspace, seen))
    return Parts(nodes=nodes, tune=tune, serve=serve)


def next_attempt(current: Status, seen: Live) -> int:
    """A number that was never used: a name that comes back finds the old one's dying pods."""
    used = [live.attempt(obj) for obj in (*seen.workflows, *seen.jobs)]
    return 1 + max([current.workflow.attempt if current.workflow else 0, *used])


def _stands(workspace: Workspace, seen: Live) -> bool:
    """Whether the server is there, and what was rolled out with it; of its Secrets, a pod that lacks one tells."""
    named = {workspace.metadata.name, rayservice.name(workspace)}
    there = {(obj["kind"], _name(obj)) for obj in seen.beside}
    token = names.ray_token(workspace)
    return (
        any(_name(d) in named for d in seen.deployments)
        and names.beside(workspace) <= there
        and not any(live.lacks(pod, token) for pod in seen.pods_of("serving"))
    )


# ---------------------------------------------------------------------- while it lives


def _living(workspace: Workspace, current: Status, seen: Live, settings: Settings) -> list[Action]:
    workflow = seen.workflow(current.workflow.name) if current.workflow else None
    cleaning = [*_clear_workflows(seen, keep=workflow), *_clear_jobs(workspace, current, seen, settings)]
    if workflow and not _is_over(workflow, seen):
        if _is_meant(workflow, workspace):
            return [*cleaning, *_set_deadlines(workspace, seen, settings), *_await_engine(workflow, seen, settings)]
        return [*cleaning, *_stop(workflow, seen), LookAgain(_SOON)]
    if any(_is_running(job) for job in seen.jobs) or _running_steps(seen):
        return [*cleaning, LookAgain(_SOON)]
    return [*cleaning, *_next(workspace, current, seen, workflow, settings)]


def _next(
    workspace: Workspace, current: Status, seen: Live, workflow: Object | None, settings: Settings
) -> list[Action]:
    """No attempt runs: start one, wait until one may start, or leave things as they are."""
    attempt = current.workflow
    parts = missing(workspace, current, seen)
    first = Parts() if parts.push and _costs_for_nothing(current) else parts
    unwanted = not parts and _is_unwanted(workspace, current, seen)
    if attempt is None or not retry.is_current(workspace, attempt):
        return [Start(first, failures=0)] if parts or unwanted else []
    releasing = attempt.kind == "release"
    if workflow is None and attempt.phase == "":
        return [Create(Parts() if releasing else parts)] if releasing or parts else []
    final = retry.stalled(workspace, current, seen)
    if workflow and live.failure(workflow) and (releasing or not final):
        again = Start(Parts() if releasing else first, attempt.failures)
        pause = retry.not_before(workflow, attempt.failures)
        return _at(pause, seen, again) if releasing or parts or unwanted else []
    if final:
        given_up = _at(_given_up(current, seen, settings), seen, Start(Parts(), failures=0))
        return given_up if not releasing and _costs_for_nothing(current) else []
    if parts:
        return _at(_calm(workspace, current, workflow), seen, Start(first, failures=0))
    return [Start(Parts(), failures=0)] if unwanted and not releasing else []


def _is_unwanted(workspace: Workspace, current: Status, seen: Live) -> bool:
    """Whether serving was switched off and left nodes or a server behind."""
    return not workspace.serves and (_holds_nodes(current) or bool(seen.deployments))


def _costs_for_nothing(current: Status) -> bool:
    """Whether nodes are held for a Workspace that cannot go on and serves nobody; until we have them, KAITO may."""
    theirs = _is_inherited(current) and not current.satisfied.nodes  # which later steps may take off its server
    return _holds_nodes(current) and not current.is_true(status.INFERENCE_READY) and not theirs


def _given_up(current: Status, seen: Live, settings: Settings) -> datetime.datetime:
    """When the nodes of a server that answered go back: it may answer again by itself, and others of several do."""
    patience = datetime.timedelta(seconds=settings.server_timeout_seconds)
    answered = current.condition(status.INFERENCE_READY)
    if not current.satisfied.serve or answered is None:
        return _EVER
    serves = any(live.replicas(deployment)[0] for deployment in seen.deployments)
    return (seen.now if serves else status.moment(answered.last_transition_time)) + patience


def _holds_nodes(current: Status) -> bool:
    return current.nodes is not None and current.nodes.held


def _is_inherited(current: Status) -> bool:
    return current.nodes is not None and current.nodes.inherited


def _calm(workspace: Workspace, current: Status, workflow: Object | None) -> datetime.datetime:
    """What was reached and is lost stays lost for a while before it is bought again.

    Where no condition tells since when, that is a while after the last attempt: who deletes again gets no storm.
    """
    wanted, reached = intent.of(workspace), current.satisfied
    if reached.nodes != wanted.nodes or reached.serve != wanted.serve or reached.tune != wanted.tune:
        return _EVER
    lost = [current.condition(name) for name in (status.RESOURCE_READY, status.INFERENCE_READY)]
    since = [status.moment(c.last_transition_time) for c in lost if c and c.status != "True"]
    ended = workflow["status"].get("finishedAt") if workflow else None
    return max(since, default=status.moment(ended) if ended else _EVER) + _CALM


def _at(moment: datetime.datetime, seen: Live, start: Start) -> list[Action]:
    wait = (moment - seen.now).total_seconds()
    return [LookAgain(wait)] if wait > 0 else [start]


def _await_engine(workflow: Object, seen: Live, settings: Settings) -> list[Action]:
    """Look again when Argo has had its time to take the Workflow up: then status says so."""
    if live.phase(workflow):
        return []
    rest = settings.argo_timeout_seconds - _age(workflow, seen)
    return [LookAgain(rest + 1)] if rest > 0 else []


# ---------------------------------------------------------------------- once it is being deleted


def _deleting(workspace: Workspace, current: Status, seen: Live, settings: Settings) -> list[Action]:
    if api.FINALIZER not in workspace.metadata.finalizers:
        return []
    attempt = current.workflow
    release = seen.workflow(attempt.name) if attempt and attempt.kind == "release" else None
    working = [w for w in seen.workflows if w["metadata"]["labels"].get(names.WORKFLOW) != "release"]
    stopping = [action for w in working if not _is_over(w, seen) for action in _stop(w, seen)]
    cleaning: list[Action] = [
        *stopping,
        *(_delete(job) for job in seen.jobs if _is_running(job) and not _is_release(job)),
    ]
    if cleaning or any(not _is_over(w, seen) for w in working):
        waited = (seen.now - status.moment(workspace.metadata.deletion_timestamp or "")).total_seconds()
        if waited < _PATIENCE:
            return [*cleaning, LookAgain(_SOON)]
    done: list[Action] = [
        *(DeleteWorkflow(_name(w)) for w in seen.workflows),
        *(_delete(job) for job in seen.jobs if _is_release(job)),
        RemoveFinalizer(),
    ]
    untouched = attempt is None and not seen.workflows and not seen.nodes and not _holds_nodes(current)
    brought = settings.node_provider == "byo" and not _holds_nodes(current)  # they may have been another's before
    nothing = (untouched or brought) and not _is_inherited(current)
    if nothing or _released(release, seen):
        return [*cleaning, *done]
    earlier = [DeleteWorkflow(_name(w)) for w in seen.workflows if w is not release and _is_over(w, seen)]
    return [*cleaning, *earlier, *_release(workspace, current, seen, settings)]


def _release(workspace: Workspace, current: Status, seen: Live, settings: Settings) -> list[Action]:
    """Give back what is billed: by a Workflow, or without Argo if that does not begin in time."""
    attempt = current.workflow
    if attempt is None or attempt.kind != "release":
        return [Start(Parts(), failures=0)]
    release = seen.workflow(attempt.name)
    if release is None and attempt.phase:
        return [Start(Parts(), failures=0)]
    if release and live.is_done(release):
        return _at(retry.not_before(release, attempt.failures), seen, Start(Parts(), attempt.failures))
    if release and any(not _is_leaving(pod) for pod in _running_steps(seen, _name(release))):
        return []
    since = release["metadata"]["creationTimestamp"] if release else workspace.metadata.deletion_timestamp
    rest = settings.argo_timeout_seconds - (seen.now - status.moment(str(since))).total_seconds()
    failed = [_delete(job) for job in seen.jobs if _is_release(job) and _has_failed(job)]
    last: list[Action] = [*failed, LookAgain(_SOON)] if failed else [ReleaseWithoutArgo()]
    waiting: list[Action] = [LookAgain(rest + 1)] if rest > 0 else last
    return waiting if release else [*waiting, Create(Parts())]


def _released(release: Object | None, seen: Live) -> bool:
    """Whether the release has ended well, by Argo's hand or without it."""
    by_job = any(_is_release(job) and job.get("status", {}).get("succeeded") for job in seen.jobs)
    return by_job or (release is not None and live.phase(release) == "Succeeded")


# ---------------------------------------------------------------------- Workflows and Jobs


def _is_meant(workflow: Object, workspace: Workspace) -> bool:
    """Whether the Workflow was made for what the user asks for now."""
    if workflow["metadata"]["labels"].get(names.WORKFLOW) == "release":
        return True  # giving back is never wrong; it ends soon
    return intent.made_for(workflow) == intent.of(workspace)


def _is_over(workflow: Object, seen: Live) -> bool:
    """Ended, or shut down with no pod left: Argo starts none for it even if its controller comes back later."""
    stopped = bool(workflow.get("spec", {}).get("shutdown"))
    return live.is_done(workflow) or (stopped and not _running_steps(seen, _name(workflow)))


def _stop(workflow: Object, seen: Live) -> list[Action]:
    if workflow.get("spec", {}).get("shutdown") and not _running_steps(seen, _name(workflow)):
        return []
    return [Stop(_name(workflow))]


def _clear_workflows(seen: Live, keep: Object | None) -> list[Action]:
    """Earlier attempts: stopped if they run, deleted once they are over; their outcome is in status."""
    actions: list[Action] = []
    for workflow in seen.workflows:
        if workflow is keep:
            continue
        actions += [DeleteWorkflow(_name(workflow))] if _is_over(workflow, seen) else _stop(workflow, seen)
    return actions


def _clear_jobs(workspace: Workspace, current: Status, seen: Live, settings: Settings) -> list[Action]:
    """Jobs of no current attempt; the newest tuning Job stays when it has ended, for its log.

    Unless its pod keeps a volume whose adapter is pushed.
    """
    attempt = current.workflow
    workflow = seen.workflow(attempt.name) if attempt else None
    # Before the Workflow was seen for the first time, its Job may be.
    runs = not _is_over(workflow, seen) if workflow else attempt is not None and attempt.phase == ""
    running = attempt.attempt if attempt and runs else 0
    tuning = [live.attempt(job) for job in seen.jobs if job["metadata"]["labels"].get(names.ROLE) == "tuning"]
    left = any(job["metadata"]["labels"].get(names.ROLE) == "push" for job in seen.jobs)
    left = left or intent.scratch(workspace, settings) != ""
    pushed = left and current.satisfied.tune == intent.of(workspace).tune
    kept = {running, 0 if pushed else max(tuning, default=0)}
    return [
        _delete(job)
        for job in seen.jobs
        if live.attempt(job) != running and (_is_running(job) or live.attempt(job) not in kept)
    ]


def _set_deadlines(workspace: Workspace, seen: Live, settings: Settings) -> list[Action]:
    """A tuning Job that runs ends when it is to by now: its deadline may be edited."""
    asked = workspace.tuning and workspace.tuning.active_deadline_seconds
    seconds = asked or settings.tuning_timeout_seconds
    return [
        SetDeadline(job["metadata"]["namespace"], _name(job), seconds)
        for job in seen.jobs
        if job["metadata"]["labels"].get(names.ROLE) == "tuning"
        and _is_running(job)
        and job["spec"].get("activeDeadlineSeconds") != seconds
    ]


def _running_steps(seen: Live, workflow: str = "") -> list[Object]:
    """Step pods that have not ended, of one Workflow or of all."""
    return [
        pod
        for pod in seen.pods_of("step")
        if pod.get("status", {}).get("phase", "Pending") in {"Pending", "Running"}
        and (not workflow or pod["metadata"]["labels"].get(_WORKFLOW_LABEL) == workflow)
    ]


def _is_leaving(pod: Object) -> bool:
    """Whether a pod is being deleted; on a dead node it stays so."""
    return "deletionTimestamp" in pod["metadata"]


def _is_running(job: Object) -> bool:
    ended = job.get("status", {})
    return not ended.get("succeeded") and not ended.get("failed")


def _has_failed(job: Object) -> bool:
    """For good: nothing of it is to be tried again."""
    ended = job.get("status", {})
    return bool(ended.get("failed")) and not ended.get("active") and not ended.get("succeeded")


def _is_release(job: Object) -> bool:
    return bool(job["metadata"]["labels"].get(names.ROLE) == "release")


def _delete(job: Object) -> DeleteJob:
    return DeleteJob(job["metadata"]["namespace"], _name(job))


def _name(obj: Object) -> str:
    return str(obj["metadata"]["name"])


def _age(obj: Object, seen: Live) -> float:
    return (seen.now - status.moment(obj["metadata"]["creationTimestamp"])).total_seconds()
