"""The server in the user's namespace: Service, ConfigMap, Secrets, Deployment, NetworkPolicy, by server-side apply.

Fields that we write are ours and put back; all others are left alone. The number of replicas is ours only at creation,
since an autoscaler may take it over. Adapters stand in the ConfigMap, never in the pod template, so that they change
without a restart. Where the user brings a pod of his own there is no `Server`, and Service and Deployment are all.
"""

import base64
import dataclasses
import hashlib
import json
import secrets as randomness
from collections.abc import Callable
from typing import Any

from kaito_hera import cluster as clusters
from kaito_hera import dockerconfigs, errors, inherited, models, names, nodes, ownpod, pods, rayservice
from kaito_hera.api import Workspace, annotations
from kaito_hera.nodes import gpus
from kaito_hera.run import Run
from kaito_hera.settings import Settings
from kaito_hera.status import Engine

ROLE = "serving"
_FOLDER = "/etc/kaito/serving"
_SCALE_MANAGER = "kaito-hera-scale"
_COUNT = "kaito.sh/node-count"
_ROUTED_SECONDS = 5
"""A server that is to end takes requests for so long: until no Service and no load balancer sends it any."""


@dataclasses.dataclass(frozen=True)
class Server:
    """What is to be served, in the serving image's own words."""

    files: dict[str, str]
    """File name and content of the mounted ConfigMap; those named in `hot` may change without a restart."""
    hot: tuple[str, ...]
    pull_secrets: tuple[tuple[str, str], ...]
    """Secrets to pull adapters with: the Workspace's field and the Secret that it names."""
    registry_auth: str
    """Where the merged docker config is mounted."""
    scratch: str
    """Where the server may write."""
    port: int
    """Where it listens."""
    lacks: Callable[[object], str]
    """What a server that answers this on /v1/models still lacks; empty when nothing. Raises ValueError on nonsense."""
    refusals: Callable[[object], dict[str, errors.KaitoError]]
    """What a server that answers this can never serve; the keys tell what is said again from what was said before."""
    tells: Callable[[object], Engine | None]
    """How it answers, by the same; None of a server that does not know yet."""
    image: str = ""
    """Another one than the serving image."""
    whole: bool = False
    """It works with all GPUs of its node."""
    nodes: int = 1
    """So many nodes hold its model together; otherwise each has a server of its own."""
    application: str = ""
    """What Ray Serve runs where it is several nodes, as `module:function`."""
    volumes: tuple[pods.Mount, ...] = ()
    """The user's, with adapters: to add or remove one restarts the server."""
    mounts: tuple[pods.Mount, ...] = ()
    """Further files."""
    env: tuple[dict[str, Any], ...] = ()
    """Further environment variables."""
    mounted: tuple[pods.Mount, ...] = ()
    """The model's image, where the kubelet pulls it."""
    key: Callable[[clusters.Cluster], str] = lambda _: ""
    """What it wants to be asked with, as the cluster has it now; empty where everybody may ask."""


def objects(
    workspace: Workspace, settings: Settings, server: Server | None, placement: nodes.Placement
) -> dict[clusters.Kind, dict[str, Any]]:
    """Everything but the Secrets, in the order in which it is applied."""
    if server is None:
        template = ownpod.template(workspace, placement, names.lasting(workspace) | {names.ROLE: ROLE})
        return {
            clusters.SERVICE: _service(workspace, ownpod.PORT),
            clusters.DEPLOYMENT: _deployment(workspace, settings, template),
        }
    template = pod_template(workspace, settings, server, placement)
    served = (
        {clusters.RAY_SERVICE: _ray_service(workspace, server, template)}
        if server.nodes > 1
        else {clusters.DEPLOYMENT: _deployment(workspace, settings, template)}
    )
    return {
        clusters.CONFIG_MAP: {"metadata": pods.metadata(workspace, names.serving(workspace)), "data": server.files},
        clusters.NETWORK_POLICY: _network_policy(workspace, server),
        clusters.SERVICE: _service(workspace, server.port, rayservice.HEAD if server.nodes > 1 else None),
        **served,
    }


def apply(run: Run, server: Server | None, placement: nodes.Placement) -> None:
    """Bring the server to what is asked; applying the same again changes nothing."""
    cluster, workspace = run.cluster, run.workspace
    if server:  # a pod of the user's own gets none of the operator's secrets
        pods.ensure_copies(cluster, workspace, run.settings)
        ensure_registry_secret(cluster, workspace, server.pull_secrets)
        _ensure_token(cluster, workspace)
    inherited.take_over(cluster, workspace)
    made = objects(workspace, run.settings, server, placement)
    _make_way(run, made.get(clusters.RAY_SERVICE))
    for kind, obj in made.items():
        pods.apply(cluster, workspace, kind, obj)
    if clusters.DEPLOYMENT in made:
        _scale(cluster, workspace)


def remove(run: Run) -> None:
    """Take the server down; the rest of its objects go with the Workspace."""
    for kind in (clusters.DEPLOYMENT, clusters.RAY_SERVICE):
        _remove(run, kind)


def _make_way(run: Run, wanted: dict[str, Any] | None) -> None:
    """Take down the server of the other kind, or a RayService that has to be another one: its nodes are needed."""
    if wanted is None:
        _remove(run, clusters.RAY_SERVICE)
        return
    _remove(run, clusters.DEPLOYMENT)
    metadata = wanted["metadata"]
    found = run.cluster.get(clusters.RAY_SERVICE, metadata["name"], metadata["namespace"])
    if found and not rayservice.stays(found, wanted):
        _remove(run, clusters.RAY_SERVICE)


def _remove(run: Run, kind: clusters.Kind) -> None:
    metadata = run.workspace.metadata
    name = rayservice.name(run.workspace) if kind == clusters.RAY_SERVICE else metadata.name
    found = run.cluster.get(kind, name, metadata.namespace)
    if found and found["metadata"].get("labels", {}).get(names.UID) == metadata.uid:
        run.cluster.delete(kind, name, metadata.namespace, uid=found["metadata"]["uid"])


def standing(cluster: clusters.Cluster, workspace: Workspace) -> tuple[clusters.Kind, dict[str, Any] | None]:
    """The server that there is, with its kind: a RayService is read as a Deployment of one replica."""
    namespace = workspace.metadata.namespace
    found = cluster.get(clusters.DEPLOYMENT, workspace.metadata.name, namespace)
    if found is None and (several := cluster.get(clusters.RAY_SERVICE, rayservice.name(workspace), namespace)):
        return clusters.RAY_SERVICE, rayservice.as_deployment(several)
    return clusters.DEPLOYMENT, found


def make_room(run: Run, placement: nodes.Placement) -> None:
    """Take the server down if its nodes have no GPU left for a pod that is to come; with room it goes on answering."""
    workspace = run.workspace
    labels = clusters.selector(selector(workspace))
    own = gpus.running(run.cluster.items(clusters.POD, workspace.metadata.namespace, labels=labels))
    if not own:
        return
    device = placement.device
    held = gpus.taken(gpus.running(run.cluster.items(clusters.POD)), device)
    found = run.cluster.items(clusters.NODE, labels=clusters.selector(placement.labels))
    usable = [node for node in found if placement.allows(node) and not nodes.unusable(node, run.want)]
    free = sum(gpus.free(node, held, device) for node in usable)
    # A replica without a node takes the next GPU that is free.
    if free >= placement.share * (1 + sum(1 for pod in own if "nodeName" not in pod["spec"])):
        print(f"a GPU is free: the server of {workspace.key} goes on answering", flush=True)
        return
    print(f"no GPU is free: the server of {workspace.key} is taken down until the roll-out", flush=True)
    remove(run)


def deadline(workspace: Workspace, settings: Settings) -> int:
    """Seconds that a new server may take until it answers."""
    asked = workspace.inference and workspace.inference.progress_deadline_seconds
    return asked or _usual(workspace, settings)


def _usual(workspace: Workspace, settings: Settings) -> int:
    """So much longer as the model is large."""
    model = models.find(workspace)
    megabytes = model.weights_gib * 2**30 / 1e6 if model else 0.0
    return settings.server_timeout_seconds + round(megabytes / settings.weights_megabytes_per_second)


def _deployment(workspace: Workspace, settings: Settings, template: dict[str, Any]) -> dict[str, Any]:
    return {
        "metadata": pods.metadata(workspace, workspace.metadata.name, role=ROLE),
        "spec": {
            "selector": {"matchLabels": selector(workspace)},
            # A spare GPU is rare: the old pod goes before the new one comes.
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}},
            "progressDeadlineSeconds": deadline(workspace, settings),
            "template": template,
        },
    }


def _ray_service(workspace: Workspace, server: Server, template: dict[str, Any]) -> dict[str, Any]:
    cold = next(name for name in server.files if name not in server.hot)
    return rayservice.manifest(
        pods.metadata(workspace, rayservice.name(workspace), role=ROLE),
        template,
        nodes=server.nodes,
        port=server.port,
        application=server.application,
        config=f"{_FOLDER}/{cold}",
    )


def pod_template(
    workspace: Workspace, settings: Settings, server: Server, placement: nodes.Placement
) -> dict[str, Any]:
    """The server's pod."""
    cold = {name: text for name, text in server.files.items() if name not in server.hot}
    digest = hashlib.sha256(json.dumps(cold, sort_keys=True).encode()).hexdigest()[:16]
    # Only a longer deadline than usual is in the pod: to shorten one must restart nobody.
    patience = max(_usual(workspace, settings), deadline(workspace, settings))
    token = {"secretKeyRef": {"name": names.ray_token(workspace), "key": "token"}}
    frame = pods.Frame(
        role=ROLE,
        image=server.image or settings.image("serving"),
        args=("serving", f"{_FOLDER}/{next(iter(cold))}"),
        mounts=_mounts(workspace, server),
        env=({"name": "RAY_AUTH_TOKEN", "valueFrom": token}, *server.env),
        limits=placement.all_limits if server.whole else placement.limits,
        container={
            "ports": [{"name": "http", "containerPort": server.port}],
            "lifecycle": {"preStop": {"sleep": {"seconds": _ROUTED_SECONDS}}},
            **_probes(patience),
        },
        # Then the server drains for a minute, and Ray takes some seconds to end.
        spec={**placement.pod_fields(), "terminationGracePeriodSeconds": 80 + _ROUTED_SECONDS},
        annotations={"kaito.sh/config-hash": digest},
        pull_secrets=(registry_name(workspace),) if server.mounted else (),
    )
    return pods.template(workspace, settings, frame)


def _mounts(workspace: Workspace, server: Server) -> tuple[pods.Mount, ...]:
    return (
        pods.Mount(_FOLDER, "config", {"configMap": {"name": names.serving(workspace)}}),
        pods.secret_file("registry", registry_name(workspace), server.registry_auth, optional=True),
        *server.mounts,
        *server.mounted,
        pods.scratch(server.scratch),
        pods.Mount("/dev/shm", "shm", _shared_memory(server), read_only=False),  # noqa: S108
        *server.volumes,
    )


def _shared_memory(server: Server) -> dict[str, Any]:
    """Ray's store; several GPUs also exchange through it."""
    return {"emptyDir": {"medium": "Memory", "sizeLimit": "4Gi" if server.whole else "256Mi"}}


def _probes(patience: int) -> dict[str, Any]:
    health = {"httpGet": {"path": "/health", "port": "http"}}
    living = {"httpGet": {"path": "/livez", "port": "http"}}
    return {
        # Weights may take half an hour; a short period shows a quick start quickly.
        "startupProbe": {**health, "periodSeconds": 2, "failureThreshold": patience // 2},
        "readinessProbe": {**health, "periodSeconds": 5, "timeoutSeconds": 5},
        "livenessProbe": {**living, "periodSeconds": 20, "timeoutSeconds": 10},
    }


def _service(workspace: Workspace, port: int, only: dict[str, str] | None = None) -> dict[str, Any]:
    """`only`: labels of those of the server's pods that answer, where not all do."""
    public = workspace.annotation(annotations.ENABLE_LB) == "true"
    return {
        "metadata": pods.metadata(workspace, workspace.metadata.name, role=ROLE),
        "spec": {
            "type": "LoadBalancer" if public else "ClusterIP",
            "selector": selector(workspace) | (only or {}),
            "ports": [
                {"name": "http", "port": 80, "targetPort": port, "protocol": "TCP"},
                # KAITO's port for torch's rendezvous; kept since users' scripts print and expect it.
                {"name": "torch", "port": 29500, "targetPort": 29500, "protocol": "TCP"},
            ],
        },
    }


def _network_policy(workspace: Workspace, server: Server) -> dict[str, Any]:
    """Ray opens many ports on all interfaces; only the HTTP port is for others."""
    return {
        "metadata": pods.metadata(workspace, names.serving(workspace)),
        "spec": {
            "podSelector": {"matchLabels": selector(workspace)},
            "policyTypes": ["Ingress"],
            "ingress": [
                {"ports": [{"port": server.port, "protocol": "TCP"}]},
                *(rayservice.admitted(selector(workspace)) if server.nodes > 1 else ()),
            ],
        },
    }


def selector(workspace: Workspace) -> dict[str, str]:
    """Labels of the server's pods."""
    # The tuning Job's pods carry the Workspace's name too, hence the role.
    return {names.WORKSPACE: names.label(workspace.metadata.name), names.ROLE: ROLE}


def _scale(cluster: clusters.Cluster, workspace: Workspace) -> None:
    """Set the replicas when the count was never set or was changed by the user, as a manager of its own.

    What that manager set stays when we apply without it, and no autoscaler is fought.
    """
    metadata, count = workspace.metadata, str(workspace.node_count)
    found = cluster.get(clusters.DEPLOYMENT, metadata.name, metadata.namespace) or {"metadata": {}}
    if found["metadata"].get("annotations", {}).get(_COUNT) != count:
        scaled = {
            "metadata": {"name": metadata.name, "namespace": metadata.namespace, "annotations": {_COUNT: count}},
            "spec": {"replicas": workspace.node_count},
        }
        cluster.apply(clusters.DEPLOYMENT, scaled, manager=_SCALE_MANAGER)


def ensure_registry_secret(cluster: clusters.Cluster, workspace: Workspace, named: tuple[tuple[str, str], ...]) -> None:
    """Merge the pull Secrets that the Workspace's fields name into one that the server mounts."""
    given = []
    for field, name in named:
        data = pods.secret(cluster, workspace.metadata.namespace, name, field=field)
        entries = json.loads(base64.b64decode(data[".dockerconfigjson"])).get("auths", {})
        given.append((dockerconfigs.image_of(workspace, field), entries))
    if auths := dockerconfigs.merged(given):
        text = base64.b64encode(json.dumps({"auths": auths}).encode()).decode()
        metadata = pods.metadata(workspace, registry_name(workspace))
        secret = {"metadata": metadata, "type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": text}}
        pods.apply(cluster, workspace, clusters.SECRET, secret)


def _ensure_token(cluster: clusters.Cluster, workspace: Workspace) -> None:
    """Ray's own ports are guarded by a random token; made once, since a new one would need a restart."""
    metadata = pods.metadata(workspace, names.ray_token(workspace))
    if cluster.get(clusters.SECRET, metadata["name"], metadata["namespace"]) is None:
        token = base64.b64encode(randomness.token_urlsafe(32).encode()).decode()
        try:
            cluster.create(clusters.SECRET, {"metadata": metadata, "type": "Opaque", "data": {"token": token}})
        except clusters.ConflictError:
            return


def registry_name(workspace: Workspace) -> str:
    """The Secret with all pull Secrets in one."""
    return names.fit(workspace.metadata.name, "-registry")
