"""The API key: the Secret that an annotation names, mounted for the server and read by the steps that ask it."""

import functools
from collections.abc import Callable
from typing import Any

from kaito_hera import cluster as clusters
from kaito_hera import errors, pods
from kaito_hera.api import Workspace, annotations
from kaito_hera.run import Run
from serving import config as serving

FIELD = f"metadata.annotations[{annotations.API_KEY}]"
_KEY = serving.API_KEY_FILE.name


def mounts(workspace: Workspace) -> tuple[pods.Mount, ...]:
    """The keys as a file, which follows the Secret. A server without it ends and says so; its pod would just wait."""
    name = _secret(workspace)
    source = {"secretName": name, "items": [{"key": _KEY, "path": _KEY}], "optional": True}
    return (pods.Mount(str(serving.API_KEY_FILE.parent), "api-key", {"secret": source}),) if name else ()


def env(workspace: Workspace) -> tuple[dict[str, Any], ...]:
    """What makes the server ask for them."""
    return ({"name": "API_KEY_FILE", "value": str(serving.API_KEY_FILE)},) if _secret(workspace) else ()


def first(workspace: Workspace) -> Callable[[clusters.Cluster], str]:
    """One that the server takes, as the Secret is when it is asked for; empty where it takes everybody."""
    return functools.partial(_first, workspace)


def pass_secret(run: Run) -> None:
    """The Secret is there and has keys that a client can send."""
    _first(run.workspace, run.cluster)


def _first(workspace: Workspace, cluster: clusters.Cluster) -> str:
    name, namespace = _secret(workspace), workspace.metadata.namespace
    if not name:
        return ""
    try:
        return serving.keys_in(pods.token(cluster, namespace, name, key=_KEY, field=FIELD))[0]
    except ValueError as cause:
        raise errors.SecretInvalidError(f"{FIELD}: Secret {namespace}/{name}, {_KEY}: {cause}") from None


def _secret(workspace: Workspace) -> str:
    """Its name; empty where nobody is asked for a key, or no server of ours is there to ask."""
    return workspace.annotation(annotations.API_KEY) if workspace.serves and workspace.preset else ""
