"""What the watcher keeps a copy of, and which part of each object: the status of a Workflow can be a megabyte."""

import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import Any

from kaito_hera import cluster as clusters
from kaito_hera import names, rayservice
from kaito_hera.live import Object
from kaito_hera.reflector import Key, Watched

_METADATA = (
    "name",
    "namespace",
    "uid",
    "generation",
    "resourceVersion",
    "labels",
    "annotations",
    "finalizers",
    "creationTimestamp",
    "deletionTimestamp",
)
_NODE = (
    "displayName",
    "type",
    "phase",
    "message",
    "startedAt",
    "finishedAt",
    "outputs",
    "children",
    "taskResultSynced",
    "nodeFlag",
)


def _workspace(obj: Object) -> Object:
    return {**obj, "metadata": _pick(obj["metadata"], _METADATA)}


def _workflow(obj: Object) -> Object:
    status = obj.get("status", {})
    nodes = {name: _pick(node, _NODE) for name, node in (status.get("nodes") or {}).items()}
    kept = _pick(status, ("phase", "message", "startedAt", "finishedAt", "compressedNodes"))
    return {
        "metadata": _metadata(obj, names.INTENT),
        "spec": _pick(obj.get("spec", {}), ("shutdown",)),
        "status": {**kept, "nodes": nodes},
    }


def _job(obj: Object) -> Object:
    return {
        "metadata": _metadata(obj, names.PROGRESS),
        "spec": _pick(obj["spec"], ("activeDeadlineSeconds",)),
        "status": _pick(obj.get("status", {}), ("succeeded", "failed", "active")),
    }


def _deployment(obj: Object) -> Object:
    status = obj.get("status", {})
    return {
        "metadata": _metadata(obj, names.ENGINE, names.PROGRESS),
        "spec": _pick(obj["spec"], ("replicas",)),
        "status": {
            **_pick(status, ("replicas", "readyReplicas", "updatedReplicas")),
            "conditions": _conditions(status, "ReplicaFailure"),
        },
    }


def _ray_service(obj: Object) -> Object:
    """What several nodes serve together, as the Deployment that one would have."""
    read = rayservice.as_deployment(obj)
    return {**_deployment(read), "kind": read["kind"]}


def _pod(obj: Object) -> Object:
    status = obj.get("status", {})
    return {
        "metadata": _metadata(obj),
        "status": {
            **_pick(status, ("phase", "reason", "message")),
            "conditions": _conditions(status, "PodScheduled", "Ready"),
            "initContainerStatuses": [_container(c) for c in status.get("initContainerStatuses", [])],
            "containerStatuses": [_container(c) for c in status.get("containerStatuses", [])],
        },
    }


def _container(status: dict[str, Any]) -> dict[str, Any]:
    return _pick(status, ("name", "state", "lastState"))


def _node(obj: Object) -> Object:
    return {"metadata": _metadata(obj), "status": {"conditions": _conditions(obj.get("status", {}), "Ready")}}


def named(kind: clusters.Kind, obj: Object) -> Object:
    """That it is there is all that is used; in a list of metadata alone the kind is not told."""
    return {"kind": kind.name, "metadata": _pick(obj["metadata"], ("name", "namespace", "labels"))}


def _metadata(obj: Object, *annotations: str) -> dict[str, Any]:
    """Without resourceVersion and generation, which change without anything that we use having changed."""
    kept = _pick(obj["metadata"], ("name", "namespace", "uid", "labels", "creationTimestamp", "deletionTimestamp"))
    return {**kept, "annotations": _pick(obj["metadata"].get("annotations") or {}, annotations)}


def _conditions(status: dict[str, Any], *types: str) -> list[dict[str, Any]]:
    fields = ("type", "status", "reason", "message")
    return [_pick(c, fields) for c in status.get("conditions", []) if c["type"] in types]


def _pick(source: dict[str, Any], fields: Iterable[str]) -> dict[str, Any]:
    return {field: source[field] for field in fields if field in source}


def _own(obj: Object) -> Key:
    return obj["metadata"]["namespace"], names.label(obj["metadata"]["name"])  # as what is made for it says


def _labelled(obj: Object) -> Key:
    labels = obj["metadata"].get("labels") or {}
    return labels.get(names.NAMESPACE, ""), labels.get(names.WORKSPACE, "")


_OURS = names.UID  # KAITO's objects carry the other labels too, but never this one
BESIDE = tuple(
    dataclasses.replace(kind, slim=True) for kind in (clusters.SERVICE, clusters.CONFIG_MAP, clusters.NETWORK_POLICY)
)
"""What stands beside a server."""
WORKSPACES = Watched(clusters.WORKSPACE, "", _own, _workspace)
NODES = Watched(clusters.NODE, _OURS, _labelled, _node)


def workflows(operator: str) -> Watched:
    """In the operator's namespace alone; without Argo there are none."""
    return Watched(clusters.WORKFLOW, _OURS, _labelled, _workflow, namespace=operator, optional=True)


def made(kind: clusters.Kind, operator: str) -> Watched:
    """Jobs, pods, servers and what stands beside those, where we make them.

    Elsewhere their labels prove nothing, since anybody may write some.
    Steps and releases are in the operator's namespace, everything else is in the Workspace's.
    """

    def claimed(obj: Object) -> Key | None:
        key = _labelled(obj)
        role = obj["metadata"]["labels"].get(names.ROLE)
        home = operator if role in {"step", "release"} else key[0]
        return key if obj["metadata"]["namespace"] == home else None

    return Watched(kind, _OURS, claimed, _TRIMS[kind], optional=kind == clusters.RAY_SERVICE)


_TRIMS: dict[clusters.Kind, Callable[[Object], Object]] = {
    clusters.JOB: _job,
    clusters.DEPLOYMENT: _deployment,
    clusters.RAY_SERVICE: _ray_service,
    clusters.POD: _pod,
    **{kind: functools.partial(named, kind) for kind in BESIDE},
}
