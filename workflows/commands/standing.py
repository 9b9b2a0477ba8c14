"""What `kaito-hera plan --live` reads of a cluster: the Workspace, its ConfigMap, the settings, what there is.

Whoever may read Workspaces alone gets an answer too: what is forbidden is said on stderr and taken as usual.
"""

import contextlib
import datetime
import sys
from typing import Any

import pydantic

from kaito_hera import cluster as clusters
from kaito_hera import decide, errors, names, rayservice, runtimes, watched
from kaito_hera.api import Workspace
from kaito_hera.cluster import Cluster
from kaito_hera.intent import Parts
from kaito_hera.live import Live
from kaito_hera.settings import CONFIG_MAP, Settings
from kaito_hera.status import Status
from workflows import configs
from workflows.outlook.documents import Documents, UnreadableError


def read(name: str, namespace: str) -> tuple[Documents, Settings, Parts | None]:
    """The Workspace with its ConfigMap, the settings, and what is left to do; raises UnreadableError."""
    cluster = Cluster.connect()
    found = workspace(cluster, name, namespace)
    settings = _settings(cluster)
    config_maps: dict[tuple[str, str], dict[str, str]] = {}
    for where, config_map in _config_maps(found, settings):
        obj = _may(cluster, clusters.CONFIG_MAP, config_map, where)
        if obj:
            config_maps[where, config_map] = obj.get("data") or {}
    return Documents((found,), config_maps), settings, _parts(cluster, found, settings)


def workspace(cluster: Cluster, name: str, namespace: str) -> dict[str, Any]:
    """The Workspace as it is stored; raises UnreadableError where there is none."""
    found = cluster.get(clusters.WORKSPACE, name, namespace)
    if found is None:
        raise UnreadableError(f"Workspace {namespace}/{name} is not there; `kubectl get workspaces -A` lists them")
    return found


def _config_maps(found: dict[str, Any], settings: Settings) -> list[tuple[str, str]]:
    """Namespace and name of those that the configs of training and serving may come from."""
    own = found["metadata"]["namespace"]
    tuning, inference = found.get("tuning") or {}, found.get("inference") or {}
    named = [(own, part["config"]) for part in (tuning, inference) if part.get("config")]
    if tuning and not tuning.get("config"):
        named.append((settings.namespace, configs.template(str(tuning.get("method")).lower())))
    return named


def _settings(cluster: Cluster) -> Settings:
    obj = _may(cluster, clusters.CONFIG_MAP, CONFIG_MAP, Settings().namespace)
    try:
        return Settings.of((obj or {}).get("data") or {})
    except pydantic.ValidationError as cause:
        raise UnreadableError(f"ConfigMap {Settings().namespace}/{CONFIG_MAP}: {cause}") from cause


def _parts(cluster: Cluster, found: dict[str, Any], settings: Settings) -> Parts | None:
    """What is left to do, as the operator would see it; None where that cannot be read."""
    try:
        parsed, seen = Workspace.parse(found), Status.of(found)
        labels = clusters.selector({names.UID: parsed.metadata.uid})
        deployments = cluster.items(clusters.DEPLOYMENT, parsed.metadata.namespace, labels=labels)
        with contextlib.suppress(clusters.UnknownKindError, errors.ForbiddenError):
            several = cluster.items(clusters.RAY_SERVICE, parsed.metadata.namespace, labels=labels)
            deployments += map(rayservice.as_deployment, several)
        nodes = [cluster.get(clusters.NODE, name) for name in seen.worker_nodes]
        beside = [
            watched.named(kind, obj)
            for kind in watched.BESIDE
            for obj in cluster.items(kind, parsed.metadata.namespace, labels=labels)
        ]
    except (errors.ForbiddenError, pydantic.ValidationError):
        return None
    there = Live(
        now=datetime.datetime.now(datetime.UTC),
        deployments=tuple(deployments),
        nodes=tuple(node for node in nodes if node),
        beside=tuple(beside),
    )
    return decide.missing(runtimes.heeded(parsed, settings), seen, there)


def _may(cluster: Cluster, kind: clusters.Kind, name: str, namespace: str) -> dict[str, Any] | None:
    try:
        return cluster.get(kind, name, namespace)
    except errors.ForbiddenError:
        print(f"note: you may not read {kind.name} {namespace}/{name}: it is taken as usual", file=sys.stderr)
        return None
