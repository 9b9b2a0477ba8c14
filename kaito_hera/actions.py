"""What there may be to do for a Workspace: `decide` chooses, `reconcile` does it."""

import dataclasses

from kaito_hera.intent import Parts


@dataclasses.dataclass(frozen=True)
class AddFinalizer:
    """Before anything costs money."""


@dataclasses.dataclass(frozen=True)
class RemoveFinalizer:
    """Nothing billable is left."""


@dataclasses.dataclass(frozen=True)
class Start:
    """Record a new attempt in status, then create its Workflow; without parts it releases."""

    parts: Parts
    failures: int


@dataclasses.dataclass(frozen=True)
class Create:
    """Create the Workflow of an attempt that status already names: the watcher died in between."""

    parts: Parts


@dataclasses.dataclass(frozen=True)
class Stop:
    """Shut a Workflow down and delete its pods."""

    workflow: str


@dataclasses.dataclass(frozen=True)
class DeleteWorkflow:
    """Its outcome is recorded, or nobody wants it any more."""

    workflow: str


@dataclasses.dataclass(frozen=True)
class DeleteJob:
    """In the foreground: its pod first."""

    namespace: str
    job: str


@dataclasses.dataclass(frozen=True)
class SetDeadline:
    """Let a Job that runs take so long, counted from its start: Kubernetes heeds an edit of that."""

    namespace: str
    job: str
    seconds: int


@dataclasses.dataclass(frozen=True)
class ReleaseWithoutArgo:
    """Run the release step as a plain Job in the operator's namespace."""


@dataclasses.dataclass(frozen=True)
class LookAgain:
    """Nothing to do until then, if nothing happens before."""

    seconds: float


Action = (
    AddFinalizer
    | RemoveFinalizer
    | Start
    | Create
    | Stop
    | DeleteWorkflow
    | DeleteJob
    | SetDeadline
    | ReleaseWithoutArgo
    | LookAgain
)
