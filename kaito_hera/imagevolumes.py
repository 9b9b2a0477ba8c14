"""Image volumes: whether the API server, a namespace and the nodes have them, by what they say themselves."""

import re
from collections.abc import Sequence
from typing import Any

from kaito_hera import cluster as clusters
from kaito_hera import errors

_RUNTIMES = {"containerd": (2, 1), "cri-o": (1, 31)}
"""Since when container runtimes mount images."""
_KUBELET = (1, 33)
"""Since when it is no trial of the kubelet's."""


def usable(cluster: clusters.Cluster, namespace: str, nodes: Sequence[dict[str, Any]]) -> bool:
    """Whether a pod there can mount an image; the log says why not."""
    why = lack(cluster, namespace, nodes)
    if why:
        print(f"the server fetches its model: {why}", flush=True)  # noqa: T201 - the step's log
    return not why


def lack(cluster: clusters.Cluster, namespace: str, nodes: Sequence[dict[str, Any]]) -> str:
    """Why no pod there can mount an image; empty where it can."""
    if not nodes:
        return "no node is there that could say whether it mounts images"
    for node in nodes:
        if not _mounts(node.get("status", {}).get("nodeInfo", {})):
            said = node.get("status", {}).get("nodeInfo", {})
            seen = f"{said.get('containerRuntimeVersion', '?')}, kubelet {said.get('kubeletVersion', '?')}"
            return f"node {node['metadata']['name']} ({seen}) mounts no images"
    return _refused(cluster, namespace)


def _mounts(said: dict[str, Any]) -> bool:
    runtime, _, version = str(said.get("containerRuntimeVersion", "")).partition("://")
    since = _RUNTIMES.get(runtime)
    return since is not None and _numbers(version) >= since and _numbers(said.get("kubeletVersion", "")) >= _KUBELET


def _numbers(version: object) -> tuple[int, ...]:
    """Major and minor number, with or without a v; nothing of what is no version."""
    found = re.match(r"v?(\d{1,9})\.(\d{1,9})", str(version))
    return tuple(map(int, found.groups())) if found else ()


def _refused(cluster: clusters.Cluster, namespace: str) -> str:
    """What the API server has against a small pod with an image volume, which is never made."""
    hardened = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    volume = {"name": "image", "image": {"reference": "localhost/image-volume"}}
    mount = {"name": "image", "mountPath": "/image", "readOnly": True}
    container = {"name": "c", "image": "localhost/c", "volumeMounts": [mount], "securityContext": hardened}
    spec = {
        "containers": [container],
        "volumes": [volume],
        "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
    }
    pod = {"metadata": {"name": "kaito-hera-image-volume", "namespace": namespace}, "spec": spec}
    try:
        made = cluster.create(clusters.POD, pod, dry_run=True)
    except (clusters.InvalidObjectError, errors.ForbiddenError) as cause:
        return f"a pod with an image volume is refused in {namespace}: {cause}"
    # An API server without them leaves them out, mounts and all, without a word.
    return "" if made["spec"].get("volumes") else "the API server has no image volumes (feature gate ImageVolume)"
