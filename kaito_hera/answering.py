"""Waiting until a rolled-out server answers on every replica, with every adapter that is wanted."""

import hashlib
import json
import time
from typing import Any

import requests

from kaito_hera import cluster as clusters
from kaito_hera import errors, rollout
from kaito_hera.rollout import PORT, Server
from kaito_hera.run import Run

_LOOK = 2.0  # seconds between looks when nothing happens
_HOT = "kaito.sh/hot-config-hash"


def await_answering(run: Run, server: Server) -> None:
    """Return when every replica answers `/health` and lists the wanted adapters as loaded.

    Raises what a server says of itself when trying again cannot help, ServerNotReadyError at the timeout.
    """
    cluster, workspace, timeout = run.cluster, run.workspace, run.settings.server_timeout_seconds
    metadata = workspace.metadata
    labels = clusters.selector(rollout.selector(workspace))
    began = time.monotonic()
    told = ""
    while True:
        page = cluster.page(clusters.POD, metadata.namespace, labels=labels)
        deployment = cluster.get(clusters.DEPLOYMENT, metadata.name, metadata.namespace)
        pods = [pod for pod in page["items"] if not pod["metadata"].get("deletionTimestamp")]
        _refresh(cluster, pods, server)
        waiting = _unready(deployment, pods) or _unloaded(pods, server)
        if not waiting:
            return
        if time.monotonic() - began > timeout:
            raise errors.ServerNotReadyError(f"Deployment {workspace.key}: {waiting} after {timeout} s")
        if waiting != told:
            told = waiting
            print(told, flush=True)
        cluster.await_change(clusters.POD, metadata.namespace, page, labels=labels, seconds=_LOOK)


def _unready(deployment: dict[str, Any] | None, pods: list[dict[str, Any]]) -> str:
    """What the Deployment still lacks; raises when a container said that it never will work."""
    for pod in pods:
        _raise_final(pod)
    if deployment is None:
        return "the Deployment is gone"
    status, wanted = deployment.get("status", {}), deployment["spec"].get("replicas", 1)
    if status.get("observedGeneration", 0) < deployment["metadata"]["generation"]:
        return "the Deployment is not looked at yet"
    if status.get("updatedReplicas", 0) < wanted or status.get("replicas", 0) > wanted:
        return f"{status.get('updatedReplicas', 0)} of {wanted} replicas are up to date"
    if status.get("readyReplicas", 0) < wanted:
        return f"{status.get('readyReplicas', 0)} of {wanted} replicas answer /health"
    return ""


def _raise_final(pod: dict[str, Any]) -> None:
    for container in pod.get("status", {}).get("containerStatuses", []):
        for state in (container.get("state", {}), container.get("lastState", {})):
            try:
                word = json.loads((state.get("terminated") or {}).get("message") or "{}")
            except ValueError:
                continue
            if isinstance(word, dict) and word.get("retryable") is False:
                raise errors.reported(word["reason"], word["message"], retryable=False)


def _refresh(cluster: clusters.Cluster, pods: list[dict[str, Any]], server: Server) -> None:
    """Touch pods whose adapters changed: the kubelet then looks at their ConfigMap at once, not in a minute."""
    hot = {name: server.files[name] for name in server.hot}
    digest = hashlib.sha256(json.dumps(hot, sort_keys=True).encode()).hexdigest()[:16]
    for pod in pods:
        metadata = pod["metadata"]
        if metadata.get("annotations", {}).get(_HOT) != digest:
            patch = {"metadata": {"annotations": {_HOT: digest}}}
            try:
                cluster.patch(clusters.POD, metadata["name"], metadata["namespace"], patch)
            except errors.ClusterUnavailableError:
                continue  # the pod went away; its successor is seen at the next look


def _unloaded(pods: list[dict[str, Any]], server: Server) -> str:
    """Which adapters a replica does not have yet."""
    for pod in pods:
        name, address = pod["metadata"]["name"], pod.get("status", {}).get("podIP", "")
        host = f"[{address}]" if ":" in address else address
        try:
            answer = requests.get(f"http://{host}:{PORT}/v1/models", timeout=5, proxies={"http": ""})
            lacks = server.lacks(answer.json())
        except (requests.RequestException, ValueError) as cause:
            return f"pod {name} does not answer /v1/models: {cause}"
        if lacks:
            return f"pod {name}: {lacks}"
    return ""
