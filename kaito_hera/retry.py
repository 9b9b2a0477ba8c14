"""Whether and when a failed attempt is followed by another. Pure; `observe` tells it and `decide` does it."""

import datetime

from kaito_hera import live, status
from kaito_hera.api import Workspace
from kaito_hera.live import Live, Reason
from kaito_hera.status import Status, WorkflowStatus

_FIRST = 10.0  # seconds
_LONGEST = 600.0
_UNKNOWN = frozenset({"Crashed", "Unexpected"})
"""What a Job's follower says of a container that ended without a word, and an image of what it has no name for."""
_UNEXPLAINED = 3
"""Failures that nobody explained are tried so often in a row: what is wrong is likely ours, and GPUs wait meanwhile."""


def is_current(workspace: Workspace, attempt: WorkflowStatus) -> bool:
    """Whether the attempt was made for what is asked now; a new generation, or a user's word, starts afresh."""
    return attempt.generation == workspace.metadata.generation and attempt.annotated == workspace.annotated


def failure(workspace: Workspace, current: Status, seen: Live) -> Reason | None:
    """Why the last attempt failed; None if it did not, or is not the current one."""
    attempt = current.workflow
    if attempt is None or not is_current(workspace, attempt):
        return None
    workflow = seen.workflow(attempt.name)
    return live.failure(workflow) if workflow else None


def stalled(workspace: Workspace, current: Status, seen: Live) -> Reason | None:
    """Why no attempt follows until the user changes something; None while one may."""
    why = failure(workspace, current, seen)
    attempt = current.workflow
    if attempt is None or not is_current(workspace, attempt):
        return None
    gone = attempt.phase in {"Failed", "Error"} and seen.workflow(attempt.name) is None
    if attempt.kind == "release" or gone:  # a release follows an attempt that cannot go on, which still holds
        said = current.condition(status.STALLED)
        if said and said.status == "True" and said.observed_generation == workspace.metadata.generation:
            return Reason(said.reason, said.message, retryable=False)
        return None
    return why if why and is_final(why, attempt.failures) else None


def is_final(reason: Reason, failures: int) -> bool:
    """Whether no attempt follows until the user changes something."""
    explained = reason.known and reason.reason not in _UNKNOWN
    return not reason.retryable or (not explained and failures >= _UNEXPLAINED)


def not_before(workflow: live.Object, failures: int) -> datetime.datetime:
    """When the next attempt may start: twice as long after each failure."""
    ended = workflow["status"].get("finishedAt") or workflow["metadata"]["creationTimestamp"]
    pause = min(_FIRST * 2 ** max(0, failures - 1), _LONGEST)
    return status.moment(ended) + datetime.timedelta(seconds=pause)
