"""Pods in the user's namespace: the same hardened frame for every one of them.

No root, no capabilities, no writable root, no service account token. What a pod needs of the operator's (pull secret,
CA bundle) is copied beside it under the Workspace's name, owned by the Workspace, so it goes when the Workspace goes.
"""

import base64
import dataclasses
import json
import re
from typing import Any

from kaito_hera import cluster as clusters
from kaito_hera import errors, names
from kaito_hera.api import GROUP, Workspace
from kaito_hera.settings import Settings

USER = 65532
_CA_FILE = "/etc/kaito/ca/ca.crt"
_DOCKER = "kubernetes.io/dockerconfigjson"
_DOCKER_KEY = ".dockerconfigjson"
_OBJECT = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")


@dataclasses.dataclass(frozen=True)
class Mount:
    """A volume and where a container sees it."""

    path: str
    name: str
    source: dict[str, Any]
    read_only: bool = True


@dataclasses.dataclass(frozen=True)
class Frame:
    """What differs between pods."""

    role: str
    image: str
    args: tuple[str, ...]
    mounts: tuple[Mount, ...] = ()
    env: tuple[dict[str, Any], ...] = ()
    limits: dict[str, str] = dataclasses.field(default_factory=dict)
    requests: dict[str, str] = dataclasses.field(default_factory=dict)
    container: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Probes, ports and the like."""
    spec: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Placement, restart policy and the like."""
    annotations: dict[str, str] = dataclasses.field(default_factory=dict)
    pull_secrets: tuple[str, ...] = ()
    """Further ones, for images that the kubelet mounts."""


def template(workspace: Workspace, settings: Settings, frame: Frame) -> dict[str, Any]:
    """A pod template (metadata and spec)."""
    mounts = [_scratch("tmp", "/tmp"), *frame.mounts, *_ca_mount(workspace, settings)]  # noqa: S108 - the pod's own
    labels = {**names.lasting(workspace), names.ROLE: frame.role}
    return {
        "metadata": {"labels": labels, "annotations": frame.annotations},
        "spec": {
            "containers": [_container(settings, frame, mounts)],
            "volumes": [{"name": mount.name, **mount.source} for mount in mounts],
            "imagePullSecrets": [{"name": name} for name in _pull_secrets(workspace, settings, frame)],
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": USER,
                "runAsGroup": USER,
                "fsGroup": USER,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            **frame.spec,
        },
    }


def _pull_secrets(workspace: Workspace, settings: Settings, frame: Frame) -> tuple[str, ...]:
    return (*([_pull_secret(workspace)] if settings.pull_secret else []), *frame.pull_secrets)


def _container(settings: Settings, frame: Frame, mounts: list[Mount]) -> dict[str, Any]:
    return {
        "name": frame.role,
        "image": frame.image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-m"],
        "args": list(frame.args),
        "env": [{"name": "HOME", "value": "/tmp"}, *_ca_env(settings), *frame.env],  # noqa: S108
        "volumeMounts": [_volume_mount(mount) for mount in mounts],
        "resources": {"limits": frame.limits, "requests": frame.requests},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        **frame.container,
    }


def ensure_copies(cluster: clusters.Cluster, workspace: Workspace, settings: Settings) -> None:
    """Put the operator's pull secret and CA bundle where the Workspace's pods can use them."""
    if settings.pull_secret:
        data = secret(cluster, settings.namespace, settings.pull_secret, field="setting pullSecret")
        copy = {"metadata": metadata(workspace, _pull_secret(workspace)), "type": _DOCKER, "data": data}
        apply(cluster, workspace, clusters.SECRET, copy)
    if settings.ca_bundle:
        bundle = cluster.get(clusters.CONFIG_MAP, settings.ca_bundle, settings.namespace)
        if bundle is None or "ca.crt" not in bundle.get("data", {}):
            raise errors.ConfigMapNotFoundError(
                f"setting caBundle: ConfigMap {settings.namespace}/{settings.ca_bundle} with a key ca.crt is missing"
            )
        copy = {"metadata": metadata(workspace, _ca_copy(workspace)), "data": {"ca.crt": bundle["data"]["ca.crt"]}}
        apply(cluster, workspace, clusters.CONFIG_MAP, copy)


def apply(cluster: clusters.Cluster, workspace: Workspace, kind: clusters.Kind, obj: dict[str, Any]) -> None:
    """Write an object of the Workspace's; what belongs to someone else is left alone, see `refuse_foreign`."""
    found = cluster.get(kind, obj["metadata"]["name"], obj["metadata"]["namespace"])
    refuse_foreign(found, workspace, kind.name)
    cluster.apply(kind, obj)


def secret(cluster: clusters.Cluster, namespace: str, name: str, *, field: str) -> dict[str, str]:
    """The data of a dockerconfigjson Secret; the error names `field`, which named the Secret."""
    if not _OBJECT.fullmatch(name):
        raise errors.InvalidWorkspaceError(f"{field}: {name!r} cannot be the name of a Secret; name your own")
    found = cluster.get(clusters.SECRET, name, namespace)
    make = (
        f"make it with `kubectl -n {namespace} create secret docker-registry {name} --docker-server=HOST"
        " --docker-username=USER --docker-password=PASSWORD`, it is looked for again by itself"
    )
    if found is None:
        raise errors.SecretNotFoundError(f"{field}: Secret {namespace}/{name} is missing; {make}")
    if _DOCKER_KEY not in found.get("data", {}):
        problem = f"Secret {namespace}/{name} is of type {found.get('type')}, {_DOCKER} is needed"
        raise errors.SecretInvalidError(f"{field}: {problem}; delete it and {make}")
    if not _has_auths(found["data"][_DOCKER_KEY]):
        problem = f'the content of Secret {namespace}/{name} is not {{"auths": {{HOST: ...}}}}'
        raise errors.SecretInvalidError(f"{field}: {problem}; delete it and {make}")
    return {_DOCKER_KEY: found["data"][_DOCKER_KEY]}


def token(cluster: clusters.Cluster, namespace: str, name: str, *, key: str, field: str) -> bytes:
    """What the Secret has under `key`; where that is nothing the error names `field`, which named the Secret."""
    if not _OBJECT.fullmatch(name):
        raise errors.InvalidWorkspaceError(f"{field}: {name!r} cannot be the name of a Secret; name your own")
    found = cluster.get(clusters.SECRET, name, namespace)
    make = f"`kubectl -n {namespace} create secret generic {name} --from-literal={key}=TOKEN`"
    if found is None:
        raise errors.SecretNotFoundError(
            f"{field}: Secret {namespace}/{name} is missing; make it with {make}, it is looked for again by itself"
        )
    value = base64.b64decode(found.get("data", {}).get(key, "")).strip()
    if not value:
        has = ", ".join(found.get("data", {})) or "nothing"
        raise errors.SecretInvalidError(
            f"{field}: Secret {namespace}/{name} has no key {key}, it has {has}; delete it and make it with {make}"
        )
    return value


def _has_auths(data: str) -> bool:
    try:
        auths = json.loads(base64.b64decode(data))["auths"]
    except (ValueError, KeyError, TypeError):
        return False
    return isinstance(auths, dict) and all(isinstance(entry, dict) for entry in auths.values())


def metadata(workspace: Workspace, name: str, *, role: str = "") -> dict[str, Any]:
    """Metadata of an object in the user's namespace that lives and dies with the Workspace."""
    return {
        "name": name,
        "namespace": workspace.metadata.namespace,
        "labels": {**names.labels(workspace), **({names.ROLE: role} if role else {})},
        "ownerReferences": [
            {
                "apiVersion": f"{GROUP}/v1beta1",
                "kind": "Workspace",
                "name": workspace.metadata.name,
                "uid": workspace.metadata.uid,
                "controller": True,
                "blockOwnerDeletion": False,
            }
        ],
    }


def refuse_foreign(found: dict[str, Any] | None, workspace: Workspace, kind: str) -> None:
    """Raise InvalidWorkspaceError when an object that we are about to write belongs to someone else.

    Raise ConflictError when it belongs to an earlier Workspace of this name: it is about to be collected.
    """
    owners = {owner["uid"]: owner for owner in (found or {"metadata": {}})["metadata"].get("ownerReferences", [])}
    if found is None or workspace.metadata.uid in owners:
        return
    name = f"{kind} {found['metadata']['namespace']}/{found['metadata']['name']}"
    if ("Workspace", workspace.metadata.name) in {(owner["kind"], owner["name"]) for owner in owners.values()}:
        raise clusters.ConflictError(f"{name} of an earlier Workspace of this name is still there, but not for long")
    raise errors.InvalidWorkspaceError(
        f"metadata.name: {name} is there already and not this Workspace's; delete it or choose another name"
    )


def scratch(path: str) -> Mount:
    """A writable volume that dies with the pod."""
    return _scratch("scratch", path)


def shared_memory() -> Mount:
    """For processes of one pod that exchange what their GPUs have computed; what is usual is too little."""
    return Mount(path="/dev/shm", name="shm", source={"emptyDir": {"medium": "Memory"}}, read_only=False)  # noqa: S108


def _scratch(name: str, path: str) -> Mount:
    return Mount(path=path, name=name, source={"emptyDir": {}}, read_only=False)


def secret_file(name: str, secret_name: str, file: str, *, optional: bool = False) -> Mount:
    """The docker config of a Secret as `file`."""
    folder, _, base = file.rpartition("/")
    items = [{"key": _DOCKER_KEY, "path": base}]
    return Mount(folder, name, {"secret": {"secretName": secret_name, "items": items, "optional": optional}})


def annotation_files(folder: str, files: dict[str, str]) -> Mount:
    """Annotations of the pod itself as files: file name and annotation. They cannot change apart from the pod."""
    items = [
        {"path": file, "fieldRef": {"fieldPath": f"metadata.annotations['{annotation}']"}}
        for file, annotation in files.items()
    ]
    return Mount(folder, "config", {"downwardAPI": {"items": items}})


def _volume_mount(mount: Mount) -> dict[str, Any]:
    return {"name": mount.name, "mountPath": mount.path, **({"readOnly": True} if mount.read_only else {})}


def _ca_mount(workspace: Workspace, settings: Settings) -> list[Mount]:
    if not settings.ca_bundle:
        return []
    folder = _CA_FILE.rpartition("/")[0]
    return [Mount(folder, "ca", {"configMap": {"name": _ca_copy(workspace)}})]


def _ca_env(settings: Settings) -> list[dict[str, str]]:
    if not settings.ca_bundle:
        return []
    return [{"name": name, "value": _CA_FILE} for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")]


def _pull_secret(workspace: Workspace) -> str:
    return names.fit(workspace.metadata.name, "-pull")


def _ca_copy(workspace: Workspace) -> str:
    return names.fit(workspace.metadata.name, "-ca")
