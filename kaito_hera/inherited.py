"""A Workspace that KAITO's controller made: its server gives way to ours, its Service stays, its tuning counts.

KAITO's objects carry the Workspace as owner and none of our labels. Its nodes are the matter of `nodes/claims.py`.
"""

import contextlib
import re
import time
from typing import Any

from artifacts import docker
from kaito_hera import cluster as clusters
from kaito_hera import errors, names
from kaito_hera.api import Workspace
from kaito_hera.api.tuning import Tuning

STATEFUL_SET = clusters.Kind("StatefulSet", "statefulsets", group="apps")
_PATIENCE = 60.0  # seconds for an object without dependants to go
_REFERENCE = r"[\w.:/@-]"
"""What an image reference is made of."""


def is_theirs(found: dict[str, Any] | None, workspace: Workspace) -> bool:
    """Whether KAITO made this object for the very Workspace."""
    if found is None:
        return False
    metadata = found["metadata"]
    owners = {owner["uid"] for owner in metadata.get("ownerReferences", [])}
    return workspace.metadata.uid in owners and names.UID not in (metadata.get("labels") or {})


def await_tuned(cluster: clusters.Cluster, workspace: Workspace) -> None:
    """Raise KaitoJobRunsError while KAITO's tuning Job runs: it is left to end, and the GPU is its own until then."""
    job = _job(cluster, workspace)
    if job and not _ended(job):
        where, name = workspace.metadata.namespace, workspace.metadata.name
        raise errors.KaitoJobRunsError(
            f"Job {where}/{name} of KAITO's still tunes and is left to end; to tune here instead:"
            f" kubectl -n {where} delete job {name}"
        )


def has_tuned(cluster: clusters.Cluster, workspace: Workspace) -> bool:
    """Whether KAITO's Job has done the very tuning that is asked for: then what is at the output is the adapter."""
    job = _job(cluster, workspace)
    if job is None or workspace.tuning is None or _ended(job) != "Complete":
        return False
    other = edited(job["spec"]["template"]["spec"], workspace.tuning)
    if other:
        print(f"KAITO's Job {workspace.key} tuned with other {', '.join(other)}: it is tuned anew", flush=True)
    return not other


def edited(pod: dict[str, Any], tuning: Tuning) -> list[str]:
    """Fields that say something else than what KAITO, of any release, made its tuning pod of. Pure."""
    containers = [*pod.get("initContainers", []), *pod["containers"]]
    text = "\n".join(word for container in containers for word in _words(container))
    volumes = {volume["name"]: volume for volume in pod.get("volumes", [])}
    kept = volumes.get("config-volume", {}).get("configMap", {}).get("name", "")
    data = {"name": "data-volume", **(tuning.input.volume_source.pod_volume() if tuning.input.volume_source else {})}
    urls = [e["value"].split() for c in containers for e in c.get("env", []) if e["name"] == "DATA_URLS"]
    same = {
        "tuning.preset": _is_base(tuning, text),
        "tuning.config": kept == (tuning.config or f"{tuning.method}-params-template"),
        "tuning.input.urls": sorted(tuning.input.urls) == sorted(urls[0] if urls else []),
        "tuning.input.image": not tuning.input.image or _names(text, tuning.input.image),
        "tuning.input.volumeSource": not tuning.input.volume_source or volumes.get("data-volume") == data,
        "tuning.output.image": bool(tuning.output.image and _names(text, tuning.output.image)),
    }
    return [field for field, is_same in same.items() if not is_same]


def take_over(cluster: clusters.Cluster, workspace: Workspace) -> None:
    """Make room for our objects of the same names: KAITO's server and ended Job go, its Service stays where it is."""
    name, namespace = workspace.metadata.name, workspace.metadata.namespace
    for kind in (STATEFUL_SET, clusters.DEPLOYMENT, clusters.JOB):
        found = cluster.get(kind, name, namespace)
        if found is not None and is_theirs(found, workspace):
            print(f"{kind.name} {namespace}/{name} of KAITO's gives way to ours", flush=True)
            cluster.delete(kind, name, namespace, uid=found["metadata"]["uid"])
            _await_gone(cluster, kind, workspace)
    service = cluster.get(clusters.SERVICE, name, namespace)
    if service is not None and is_theirs(service, workspace):
        _reduce(cluster, service)


def _job(cluster: clusters.Cluster, workspace: Workspace) -> dict[str, Any] | None:
    found = cluster.get(clusters.JOB, workspace.metadata.name, workspace.metadata.namespace)
    return found if is_theirs(found, workspace) else None


def _ended(job: dict[str, Any] | None) -> str:
    """Complete or Failed; empty while it runs, or where there is none."""
    conditions = (job or {}).get("status", {}).get("conditions", [])
    return next((c["type"] for c in conditions if c["type"] in {"Complete", "Failed"} and c["status"] == "True"), "")


def _words(container: dict[str, Any]) -> list[str]:
    """What a container is told, but for its environment."""
    return [container["image"], *container.get("command", []), *container.get("args", [])]


def _is_base(tuning: Tuning, text: str) -> bool:
    """A model's own image is called kaito-NAME; since v0.4.5 the pusher knows the name too."""
    if image := tuning.preset.options.image:
        return _names(text, image)
    name = re.escape(tuning.preset.name)
    return re.search(rf'/kaito-{name}[:@]|"sh.kaito.model.name":"{name}"', text) is not None


def _names(text: str, image: str) -> bool:
    """Whether an image is named, as it was written or, since v0.4.5, with its host and tag."""
    spelled = {image}
    with contextlib.suppress(ValueError):
        spelled.add(str(docker.parse(image)))
    ways = "|".join(map(re.escape, spelled))
    return re.search(rf"(?<!{_REFERENCE})(?:{ways})(?!{_REFERENCE})", text) is not None


def _await_gone(cluster: clusters.Cluster, kind: clusters.Kind, workspace: Workspace) -> None:
    name, namespace = workspace.metadata.name, workspace.metadata.namespace
    end = time.monotonic() + _PATIENCE
    while is_theirs(cluster.get(kind, name, namespace), workspace):
        if time.monotonic() > end:
            raise clusters.ConflictError(
                f"{kind.name} {namespace}/{name} of KAITO's is deleted and still there: see what its finalizers await"
            )
        time.sleep(0.5)


def _reduce(cluster: clusters.Cluster, service: dict[str, Any]) -> None:
    """Take off what our apply would leave alone: ports of KAITO's runtime, and traffic to pods that are not ready."""
    ports = [port for port in service["spec"].get("ports", []) if port["port"] in {80, 29500}]
    metadata = service["metadata"]
    spec = {"ports": ports or service["spec"]["ports"], "publishNotReadyAddresses": None}
    body = {"metadata": {"resourceVersion": metadata["resourceVersion"]}, "spec": spec}
    cluster.patch(clusters.SERVICE, metadata["name"], metadata["namespace"], body)
