"""The volumes that a Workspace names: how a pod mounts one, and what can be known of a claim before a GPU is bought.

Volumes of other kinds are judged by the API server, in the dry run of the pods that mount them.
"""

import dataclasses
from typing import Any

from kaito_hera import cluster as clusters
from kaito_hera import errors, models, pods
from kaito_hera.api import Workspace, annotations
from kaito_hera.api.sources import Volume
from kaito_hera.nodes import disk

INPUT = "tuning.input.volumeSource"
OUTPUT = "tuning.output.volumeSource"
_CACHE = f"metadata.annotations[{annotations.CACHE}]"

_SHARED = frozenset({"ReadWriteMany", "ReadOnlyMany"})
"""Access modes under which pods on several nodes may read."""
_ONE_POD = "ReadWriteOncePod"


@dataclasses.dataclass(frozen=True)
class Use:
    """One place of a Workspace that names a volume, and what is done with it."""

    field: str
    volume: Volume
    tunes: bool = False
    """The tuning Job mounts it."""
    writes: bool = False
    """That Job writes to it."""
    serves: int = 0
    """So many servers read it."""
    caches: bool = False
    """Servers write to it, too."""
    gib: float = 0.0
    """So much of a model they write at the least, as far as it is known here."""
    within: str = ".persistentVolumeClaim.claimName"
    """Where in the field a claim's name stands."""


def named(workspace: Workspace, *, tuned: bool = False) -> tuple[Use, ...]:
    """All that will be mounted; where the adapter is there already (`tuned`), what tuning alone needs is not."""
    servers = workspace.node_count if workspace.serves else 0
    found = []
    if workspace.tuning:
        data, adapter = workspace.tuning.input.volume_source, workspace.tuning.output.volume_source
        if data and not tuned:
            found.append(Use(INPUT, data, tunes=True))
        if adapter:
            found.append(Use(OUTPUT, adapter, tunes=not tuned, writes=not tuned, serves=servers))
    if servers:
        found += [
            Use(f"inference.adapters[{at}].source.volumeSource", adapter.source.volume_source, serves=servers)
            for at, adapter in enumerate(workspace.adapters)
            if adapter.source.volume_source
        ]
        if claim := cache(workspace):
            found.append(Use(_CACHE, claim, serves=servers, caches=True, gib=_weights_gib(workspace), within=""))
    return tuple(found)


def cache(workspace: Workspace) -> Volume | None:
    """The claim that keeps weights from start to start, for a server of ours."""
    name = workspace.annotation(annotations.CACHE) if workspace.serves and workspace.preset else ""
    return Volume.model_validate({"persistentVolumeClaim": {"claimName": name}}) if name else None


def _weights_gib(workspace: Workspace) -> float:
    model, preset = models.find(workspace), workspace.preset
    return model.weights_gib if model and preset and not preset.options.image else 0.0


def mount(name: str, path: str, volume: Volume, *, writes: bool = False) -> pods.Mount:
    """The volume in a pod, read-only unless it is written to."""
    return pods.Mount(path, name, volume.pod_volume(), read_only=not writes)


def pass_claim(cluster: clusters.Cluster, workspace: Workspace, use: Use) -> None:
    """The claim, if it is one, is there and lets be done what is asked; raises the first reason why not."""
    claim = use.volume.persistent_volume_claim
    if claim is None:
        return
    name = f"{use.field}{use.within}: claim {workspace.metadata.namespace}/{claim.claim_name}"
    found = _claim(cluster, workspace, use.volume)
    if found is None:
        raise errors.ClaimNotFoundError(f"{name} is missing; make it, it is looked for again by itself")
    if found["metadata"].get("deletionTimestamp") or found.get("status", {}).get("phase") == "Lost":
        state = "being deleted" if found["metadata"].get("deletionTimestamp") else "without its volume (Lost)"
        raise errors.ClaimNotFoundError(f"{name} is {state}; make it anew, it is looked for again by itself")
    if problem := _unfit(found, use) or _unbound(cluster, found):
        raise errors.ClaimInvalidError(f"{name} {problem}")


def may_look(cluster: clusters.Cluster, workspace: Workspace, volume: Volume | None) -> bool:
    """Whether a pod on any node may mount it: a claim of one node would be bound or kept busy by a look."""
    if volume is None or volume.persistent_volume_claim is None:
        return False
    found = _claim(cluster, workspace, volume)
    bound = found is not None and found.get("status", {}).get("phase") == "Bound"
    return bound and not _SHARED.isdisjoint(_modes(found or {}))


def _claim(cluster: clusters.Cluster, workspace: Workspace, volume: Volume) -> dict[str, Any] | None:
    claim = volume.persistent_volume_claim
    assert claim is not None
    return cluster.get(clusters.CLAIM, claim.claim_name, workspace.metadata.namespace)


def _modes(claim: dict[str, Any]) -> set[str]:
    return set(claim.get("spec", {}).get("accessModes", []))


def _unfit(claim: dict[str, Any], use: Use) -> str:
    """Why a claim that is there cannot be used so; empty when it can."""
    modes = _modes(claim)
    shown = ", ".join(sorted(modes)) or "no access mode"
    if claim["spec"].get("volumeMode") == "Block":
        return "is a block device (volumeMode Block); make one of volumeMode Filesystem"
    if (use.writes or use.caches) and modes == {"ReadOnlyMany"}:
        what = "the model is" if use.caches else "the adapter is"
        return f"may only be read (ReadOnlyMany); {what} written to it: make one of ReadWriteOnce"
    if use.serves > 1 and modes.isdisjoint({"ReadWriteMany"} if use.caches else _SHARED):
        return f"may be mounted on one node ({shown}), resource.count is {use.serves}: make one of ReadWriteMany"
    if use.tunes and use.serves and modes == {_ONE_POD}:
        return (
            "may be mounted by one pod (ReadWriteOncePod), tuning and serving both need it: make one of ReadWriteOnce"
        )
    return _too_small(claim, use)


def _too_small(claim: dict[str, Any], use: Use) -> str:
    """By what its volume has; before there is one, by what it asks for."""
    has = claim.get("status", {}).get("capacity") or claim["spec"].get("resources", {}).get("requests", {})
    said = str(has.get("storage", ""))
    found = disk.read(said)
    if found is None or found >= use.gib:
        return ""
    return (
        f"has {found:.1f} GiB (storage: {said}), the model's weights alone are {use.gib:.1f} GiB; make it larger"
        " (spec.resources.requests.storage) or anew, or take the annotation out"
    )


def _unbound(cluster: clusters.Cluster, claim: dict[str, Any]) -> str:
    """Why a claim that waits for its volume may wait for ever; empty where it is bound, or will be by its pod."""
    spec = claim["spec"]
    if claim.get("status", {}).get("phase") == "Bound" or spec.get("volumeName"):
        return ""
    name = spec.get("storageClassName")
    if not name:
        return (
            "has no volume, and no storageClassName by which one would be made (Pending); make it anew with one of"
            " `kubectl get storageclass`, or with the volumeName of a PersistentVolume"
        )
    try:
        found = cluster.get(clusters.STORAGE_CLASS, name)
    except errors.ForbiddenError:  # by an older role: then its pod will tell
        return ""
    if found is None:
        return f"is of StorageClass {name}, which is missing; make it anew with one of `kubectl get storageclass`"
    if found.get("volumeBindingMode") == "WaitForFirstConsumer":
        return ""
    return f"has no volume yet (Pending), which StorageClass {name} makes at once; see `kubectl describe pvc`"
