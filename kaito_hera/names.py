"""Names and labels of everything that is made for a Workspace; all follow from the Workspace alone."""

import hashlib

from kaito_hera.api import Workspace

WORKSPACE = "kaito.sh/workspace"
NAMESPACE = "kaito.sh/workspacenamespace"
UID = "kaito.sh/workspace-uid"
GENERATION = "kaito.sh/generation"
ROLE = "kaito.sh/role"
"""tuning, push, check, serving or step: what a pod is there for; scratch is a claim's."""
WORKFLOW = "kaito.sh/workflow"
"""serve, tune, push or release: which kind of Workflow it is."""
ATTEMPT = "kaito.sh/attempt"
INTENT = "kaito.sh/intent"
"""Annotation of a Workflow, and of a claim for what is trained: the hashes that it was made for."""
PROGRESS = "kaito.sh/progress"
"""Annotation of a Job that tunes or pushes: its last progress line; of a server: how its weights come."""
ENGINE = "kaito.sh/engine"
"""Annotation of a Deployment: how its server answers, as it was rolled out."""
CONFIG = "kaito.sh/config"
"""Annotation of a Job's pods: what they are asked to do, as JSON."""
ADAPTERS = "kaito.sh/adapters"
"""Annotation of a check Job's pods: the adapters to look at, as JSON."""
_LONGEST = 63  # what Kubernetes lets a label's value, and most names, have
MANAGED = "app.kubernetes.io/managed-by"


def labels(workspace: Workspace) -> dict[str, str]:
    """On everything that we make."""
    return {**lasting(workspace), GENERATION: str(workspace.metadata.generation)}


def lasting(workspace: Workspace) -> dict[str, str]:
    """On the server's pods: an edit that does not concern them must not restart them."""
    metadata = workspace.metadata
    return {WORKSPACE: label(metadata.name), NAMESPACE: metadata.namespace, UID: metadata.uid, MANAGED: "kaito-hera"}


def workflow(workspace: Workspace, attempt: int) -> str:
    """Never used twice: the attempt only rises."""
    metadata = workspace.metadata
    suffix = f"-{metadata.uid[:5]}-g{metadata.generation}-a{attempt}"
    return fit(f"{metadata.namespace}-{metadata.name}", suffix)


def job(workspace: Workspace, attempt: int) -> str:
    """The tuning Job of an attempt: the Workspace's own name at first, later one that no Workspace has."""
    return fit(workspace.metadata.name, f"-{workspace.metadata.uid[:5]}-a{attempt}" if attempt > 1 else "")


def push_job(workspace: Workspace, attempt: int) -> str:
    """The Job without GPUs that pushes what was trained onto a volume of ours."""
    return fit(workspace.metadata.name, f"-{workspace.metadata.uid[:5]}-push-a{attempt}")


def scratch(workspace: Workspace, trained: str) -> str:
    """The claim for what is trained, of the intent with that hash."""
    return fit(workspace.metadata.name, f"-{workspace.metadata.uid[:5]}-{trained[:8]}")


def check_job(workspace: Workspace, attempt: int, *, second: bool = False) -> str:
    """The small Job that looks at data and registries before a GPU is bought; a second one asks for adapters."""
    what = "check2" if second else "check"
    return fit(workspace.metadata.name, f"-{workspace.metadata.uid[:5]}-{what}-a{attempt}")


def release_job(workspace: Workspace) -> str:
    """The plain Job that releases nodes when Argo does not."""
    return fit(f"{workspace.metadata.namespace}-{workspace.metadata.name}", f"-{workspace.metadata.uid[:5]}-release")


def serving(workspace: Workspace) -> str:
    """The server's ConfigMap and its NetworkPolicy."""
    return fit(workspace.metadata.name, "-serving")


def ray_token(workspace: Workspace) -> str:
    """The Secret that guards Ray's own ports."""
    return fit(workspace.metadata.name, "-ray-token")


def beside(workspace: Workspace) -> set[tuple[str, str]]:
    """Kind and name of what stands beside its server, but for Secrets, which the operator may not list."""
    ours = {("ConfigMap", serving(workspace)), ("NetworkPolicy", serving(workspace))}
    return {("Service", workspace.metadata.name), *(ours if workspace.preset else ())}


def label(name: str) -> str:
    """A Workspace's name as a label's value: KAITO let names be longer than those."""
    return name if len(name) <= _LONGEST else _cut(name, _LONGEST)


def fit(name: str, suffix: str = "", *, limit: int = _LONGEST) -> str:
    """`name` + `suffix`, cut to `limit` characters with a hash of the whole in place of what was cut.

    Without dots, which KAITO let a Workspace's name have and a pod's host name cannot have.
    """
    if len(name) + len(suffix) <= limit and "." not in name:
        return name + suffix
    return _cut(name, limit - len(suffix)).replace(".", "-") + suffix


def _cut(name: str, limit: int) -> str:
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name[: limit - 9].rstrip('-.')}-{digest}"
