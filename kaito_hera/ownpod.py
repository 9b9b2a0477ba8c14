"""The user's own pod, `inference.template`, as the pod template of the server's Deployment.

It stays as it is written, but for what a roll-out cannot do without: labels by which its pods are found, the nodes of
the Workspace, and a GPU where no container asks for one, since the nodes are paid for their GPUs. What Kubernetes
thinks of it is asked in preflight, not guessed here; only what has to be merged must be of the right kind.
"""

import contextlib
import re
import reprlib
from collections.abc import Iterator
from typing import Any

from kaito_hera import cluster as clusters
from kaito_hera import errors, nodes
from kaito_hera.api import Workspace

PORT = 5000
"""Where the user's server listens, as in KAITO."""

FIELD = "inference.template"
_PLACES = {
    clusters.DEPLOYMENT: (r"\.?\bspec\.template\b", FIELD),
    clusters.POD: (r"(?<![\w.])spec(?=[.:\[])", f"{FIELD}.spec"),
}
"""Where the API server sees the template, and where the user does."""
_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"


def template(workspace: Workspace, placement: nodes.Placement, labels: dict[str, str]) -> dict[str, Any]:
    """The template with `labels`, on the Workspace's nodes; raises InvalidWorkspaceError where they exclude it."""
    written = (workspace.inference and workspace.inference.template) or {}
    metadata, spec = _map(written, "metadata", FIELD), _map(written, "spec", FIELD)
    _refuse_host_paths(spec)
    metadata["labels"] = _map(metadata, "labels", f"{FIELD}.metadata") | labels
    spec |= _placed(spec, placement)
    if not _asks_for_gpu(spec):
        spec |= _with_gpu(spec, {placement.device: str(placement.whole or nodes.wanted(workspace).gpus)})
    return {**written, "metadata": metadata, "spec": spec}


def notes(workspace: Workspace) -> tuple[str, ...]:
    """What the user should know of what is added to his pod."""
    template = workspace.inference and workspace.inference.template
    if not template or _asks_for_gpu(_map(template, "spec", FIELD)):
        return ()
    text = "no container asks for a GPU, so the first gets all of a node's, which are paid for; ask for as many as it"
    return (f"{FIELD}: {text} needs in resources.limits ({nodes.GPU}: 0 for none)",)


@contextlib.contextmanager
def in_users_words(kind: clusters.Kind, *, own: bool) -> Iterator[None]:
    """What the API server says of the Deployment or the pod, with the fields as the user wrote them."""
    try:
        yield
    except (clusters.InvalidObjectError, errors.ForbiddenError) as cause:
        if not own:
            raise
        place, here = _PLACES[kind]
        text = re.sub(place, here, str(cause))
        if isinstance(cause, errors.ForbiddenError):
            raise errors.ForbiddenError(f"{FIELD}: such a pod may not be made in this namespace: {text}") from cause
        raise errors.InvalidWorkspaceError(f"{FIELD}: the API server refuses it: {text}") from cause


def _refuse_host_paths(spec: dict[str, Any]) -> None:
    """We make this pod, so a cluster without the admission policy must not let a tenant borrow our rights."""
    for at, volume in enumerate(_list(spec, "volumes")):
        if isinstance(volume, dict) and volume.get("hostPath") is not None:
            raise errors.InvalidWorkspaceError(
                f"{FIELD}.spec.volumes[{at}].hostPath: a folder of the node's is never mounted; take a claim"
                " (persistentVolumeClaim) or an emptyDir"
            )


def _placed(spec: dict[str, Any], placement: nodes.Placement) -> dict[str, Any]:
    """nodeSelector, affinity and tolerations: the user's and the Workspace's, both of which must hold."""
    ours = placement.pod_fields()
    selector = _map(spec, "nodeSelector", f"{FIELD}.spec")
    for key, value in ours["nodeSelector"].items():
        if selector.get(key, value) != value:
            raise errors.InvalidWorkspaceError(
                f"{FIELD}.spec.nodeSelector: {key} is {reprlib.repr(selector[key])}, but the Workspace's nodes have"
                f" {value!r} there; take it out: the pod goes to the nodes of resource anyway"
            )
    fields: dict[str, Any] = {"nodeSelector": selector | ours["nodeSelector"]}
    own = _list(spec, "tolerations")
    fields["tolerations"] = own + [each for each in ours["tolerations"] if each not in own]
    if "affinity" in ours:
        fields["affinity"] = _joined(_map(spec, "affinity", f"{FIELD}.spec"), ours["affinity"])
    return fields


def _joined(theirs: dict[str, Any], ours: dict[str, Any]) -> dict[str, Any]:
    """Terms are alternatives, so each of the user's is joined with each of ours."""
    field = f"{FIELD}.spec.affinity"
    on_nodes = _map(theirs, "nodeAffinity", field)
    required = _map(on_nodes, _REQUIRED, f"{field}.nodeAffinity")
    terms = _list(required, "nodeSelectorTerms", f"{field}.nodeAffinity.{_REQUIRED}") or [{}]
    known = [
        {key: [*_list(term, key), *mine.get(key, [])] for key in {**term, **mine}}
        for term in terms
        if isinstance(term, dict)
        for mine in ours["nodeAffinity"][_REQUIRED]["nodeSelectorTerms"]
    ]
    strange = [term for term in terms if not isinstance(term, dict)]  # for the API server to name
    return {**theirs, "nodeAffinity": {**on_nodes, _REQUIRED: {**required, "nodeSelectorTerms": known + strange}}}


def _asks_for_gpu(spec: dict[str, Any]) -> bool:
    """Whether any container asks for GPUs by itself, by whatever name the device plugin has for them."""
    asked: set[str] = set()
    for container in (*_list(spec, "containers"), *_list(spec, "initContainers")):
        resources = container.get("resources") if isinstance(container, dict) else None
        for kind in ("limits", "requests"):
            wanted = resources.get(kind) if isinstance(resources, dict) else None
            asked |= wanted.keys() if isinstance(wanted, dict) else set()
    vendor = nodes.GPU.partition("/")[0]
    return bool(spec.get("resourceClaims")) or any(name.startswith(f"{vendor}/") for name in asked)


def _with_gpu(spec: dict[str, Any], gpus: dict[str, str]) -> dict[str, Any]:
    """The first container with all GPUs of a node; none where there is no container to give them to."""
    containers = _list(spec, "containers")
    if not containers or not isinstance(containers[0], dict):
        return {}
    first, field = containers[0], f"{FIELD}.spec.containers[0]"
    resources = _map(first, "resources", field)
    limits = _map(resources, "limits", f"{field}.resources") | gpus
    return {"containers": [{**first, "resources": {**resources, "limits": limits}}, *containers[1:]]}


def _map(parent: dict[str, Any], key: str, field: str) -> dict[str, Any]:
    """A copy of an object; what is not there is an empty one."""
    value = parent.get(key)
    if value is not None and not isinstance(value, dict):
        raise errors.InvalidWorkspaceError(
            f"{field}.{key}: {reprlib.repr(value)} is no object; write it as in the pod template of a Deployment"
        )
    return dict(value or {})


def _list(parent: dict[str, Any], key: str, field: str = f"{FIELD}.spec") -> list[Any]:
    value = parent.get(key)
    if value is not None and not isinstance(value, list):
        raise errors.InvalidWorkspaceError(
            f"{field}.{key}: {reprlib.repr(value)} is no list; write it as in the pod template of a Deployment"
        )
    return list(value or [])
