"""What can be known before a GPU is bought, as small functions that raise the first reason why this cannot work.

Those that need nothing but the Workspace come first, then those that read the cluster, then the dry runs, in which
quotas, Pod Security and admission policies speak.
"""

import contextlib
import dataclasses
import datetime
from typing import Any

import presets
from kaito_hera import cluster as clusters
from kaito_hera import errors, jobs, nodes, pods, rollout
from kaito_hera.api import SERVE_ANNOTATION, Workspace
from kaito_hera.run import Run
from kaito_hera.settings import Settings
from presets import memory

MINIMUM_CAPABILITY = (7, 5)
"""Lowest CUDA compute capability that the images' torch has kernels for."""


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What a Workspace will need of the cluster."""

    objects: tuple[tuple[clusters.Kind, dict[str, Any]], ...]
    """What will be made in the user's namespace: pods by what will make them."""
    gpu_gib: dict[str, float]
    """GiB on one GPU to tune and to serve, whichever is asked for."""
    pull_secrets: tuple[tuple[str, str], ...]
    """Docker Secrets: the Workspace's field and the name in it."""
    check: jobs.Task | None
    """A look at data and registries from where the work will run, if there is anything to look at."""
    warnings: tuple[str, ...] = ()
    """What the user should know though it stops nothing."""


def pass_facts(workspace: Workspace, settings: Settings) -> None:
    """What follows from the Workspace alone."""
    serve = workspace.metadata.annotations.get(SERVE_ANNOTATION, "true")
    if serve not in {"true", "false"}:
        raise errors.InvalidWorkspaceError(
            f'metadata.annotations[{SERVE_ANNOTATION}]: {serve[:40]!r} is neither "true" nor "false"'
        )
    preset(workspace)
    instance_type(workspace, settings)


def pass_cluster(run: Run, wanted: Wanted) -> str:
    """What only the cluster, the data's host and the registry can say; the adapter's digest if it is there already."""
    gpu_memory(run.workspace, wanted.gpu_gib)
    for field, name in wanted.pull_secrets:
        pods.secret(run.cluster, run.workspace.metadata.namespace, name, field=field)
    for kind, obj in wanted.objects:
        dry_run(run.cluster, run.workspace, kind, obj)
    if wanted.check is None:
        return ""
    pods.ensure_copies(run.cluster, run.workspace, run.settings)
    rollout.ensure_registry_secret(run.cluster, run.workspace, wanted.pull_secrets)
    return str(jobs.run(run, wanted.check).get("adapter", ""))


def preset(workspace: Workspace) -> presets.Preset:
    """The model is known, and can be tuned if that is asked."""
    field = "tuning.preset.name" if workspace.tuning else "inference.preset.name"
    try:
        found = presets.preset(workspace.preset_name)
    except presets.UnknownNameError as cause:
        raise errors.UnknownPresetError(f"{field}: {cause}") from cause
    if workspace.tuning and not found.tunable:
        able = ", ".join(name for name, model in presets.presets().items() if model.tunable)
        raise errors.PresetNotTunableError(f"{field}: {found.name} cannot be tuned; these can: {able}")
    return found


def instance_type(workspace: Workspace, settings: Settings) -> presets.Size | None:
    """The GPU size is known, is named exactly where nodes are made, and can run the images."""
    if workspace.resource.instance_type is None:
        if settings.node_provider != "byo":
            raise errors.InvalidWorkspaceError(
                "resource.instanceType: is missing; name the nodes' size, for example Standard_NC24ads_A100_v4"
            )
        return None
    size = nodes.wanted(workspace).size
    assert size is not None
    if problem := unusable(size):
        if settings.gpu_capability_check == "refuse":
            raise errors.UnsupportedGPUError(f"resource.instanceType: {problem}")
        print(f"warning: resource.instanceType: {problem}", flush=True)
    return size


def unusable(size: presets.Size) -> str:
    """Why the images cannot run on this size; empty when they can."""
    others = f"; take {' or '.join(size.instead)} instead (delete the Workspace and apply it anew)"
    instead = others if size.instead else ""
    if size.compute < MINIMUM_CAPABILITY:
        lowest = ".".join(str(part) for part in MINIMUM_CAPABILITY)
        has = f"{size.gpu}, {f'capability {size.capability}' if size.capability else 'which is not CUDA'}"
        return f"{size.name} has {has}; the images need CUDA capability {lowest} or newer{instead}"
    if size.arch != "amd64":
        return f"{size.name} has hosts of {size.arch}; the images are built for amd64{instead}"
    if size.retired(datetime.datetime.now(datetime.UTC).date()):
        return f"{size.name} was retired on {size.retired_on}{instead}"
    return "" if size.gpu_memory_gib else f"{size.name}: how much GPU memory it has is not known here; take another"


def gpu_memory(workspace: Workspace, needs: dict[str, float]) -> None:
    """One GPU of the size holds the model for what is to be done with it."""
    size = nodes.wanted(workspace).size
    if size is None:
        return  # nodes that were brought may have any GPU; the image's own check follows on the node
    for verb, gib in needs.items():
        if not memory.fits(gib, size):
            fitting = memory.cheapest(gib, minimum=MINIMUM_CAPABILITY, cloud=size.cloud)
            advice = f"; take {fitting[0].name} (delete the Workspace and apply it anew)" if fitting else ""
            advice += "; or lower per_device_train_batch_size or max_length" if verb == "tune" else ""
            raise errors.InsufficientGPUMemoryError(
                f"resource.instanceType: {size.name} has {size.gib_per_gpu:.0f} GiB per GPU,"
                f" to {verb} {workspace.preset_name} needs {gib:.1f} GiB and a margin of 10 %{advice}"
            )


def dry_run(cluster: clusters.Cluster, workspace: Workspace, kind: clusters.Kind, obj: dict[str, Any]) -> None:
    """The API server would take this object, and its pods if it has any; its name is not somebody else's.

    One of ours that is there was let in before. Asked again, a quota that it fills would speak against itself.
    """
    metadata = obj["metadata"]
    found = cluster.get(kind, metadata["name"], metadata["namespace"])
    pods.refuse_foreign(found, workspace, kind.name)
    if found:
        return
    todo = [(kind, obj)]
    if template := obj.get("spec", {}).get("template"):
        whole = {"name": metadata["name"], "namespace": metadata["namespace"], **template["metadata"]}
        todo.append((clusters.POD, {"metadata": whole, "spec": template["spec"]}))
    for made, body in todo:
        with contextlib.suppress(clusters.ConflictError):  # of that very name: the server had nothing else against it
            cluster.create(made, body, dry_run=True)


def config_map(cluster: clusters.Cluster, namespace: str, name: str, *, key: str, field: str) -> str:
    """One key of a ConfigMap that the Workspace's `field` names."""
    found = cluster.get(clusters.CONFIG_MAP, name, namespace)
    if found is None:
        raise errors.ConfigMapNotFoundError(f"{field}: ConfigMap {namespace}/{name} is missing")
    if key not in found.get("data", {}):
        has = ", ".join(found.get("data", {})) or "nothing"
        raise errors.ConfigInvalidError(f"{field}: ConfigMap {namespace}/{name} has no key {key}, it has {has}")
    return str(found["data"][key])
