"""A server whose model several nodes hold together: KubeRay's RayService in place of a Deployment. Pure.

The head is one of the nodes and answers, the others work for it. Knows pods as `rollout` makes them, and of the image
how it is started. On the one-machine cluster KubeRay starts it on two nodes, with a stand-in for vLLM; with GPUs
it was never run.
"""

import contextlib
import copy
import hashlib
import json
from typing import Any

from kaito_hera import names
from kaito_hera.api import Workspace

KIND = "RayService"
LEAST = "1.5.1"
"""The KubeRay from which Ray's own ports ask for a token."""
NODE = "ray.io/node-type"
HEAD = {NODE: "head", "ray.io/serve": "true"}
"""Labels of the pod that answers: KubeRay sets the second by whether Ray Serve does."""
RAY = "2.60.0"
"""Of the image serving-vllm; a test holds it against requirements/vllm.txt."""
FETCHES = "weights"
"""Name of the container that fetches the weights, before Ray starts."""
_LONGEST = 47
"""Letters of a RayService's name, as KubeRay has it."""
_GCS, _AGENT, _DASHBOARD = 6379, 52365, 8265
_OPERATOR = {"app.kubernetes.io/component": "kuberay-operator"}
_CLUSTER = "kaito.sh/cluster-hash"
_SAID = 1000  # characters, of a traceback's end
_STORE_BYTES = 100_000_000
"""Nothing of ours goes through Ray's store."""


def name(workspace: Workspace) -> str:
    """The Workspace's own, if KubeRay takes it."""
    return names.fit(workspace.metadata.name, limit=_LONGEST)


def manifest(
    metadata: dict[str, Any], template: dict[str, Any], *, nodes: int, port: int, application: str, config: str
) -> dict[str, Any]:
    """A RayService of pods like `template`, one on each of the nodes; `config` is the file that they are told by."""
    spec = {
        "serveConfigV2": json.dumps(_serve(application, config, port), sort_keys=True),
        # A second cluster beside the first would need as many nodes again: `rollout` takes the first away instead.
        "upgradeStrategy": {"type": "None"},
        "rayClusterConfig": {
            "rayVersion": RAY,
            "authOptions": {"mode": "token"},
            "headGroupSpec": {
                "rayStartParams": _start() | {"dashboard-host": "0.0.0.0"},  # noqa: S104 - KubeRay asks there
                "template": _pod(template, config, _ports(port)),
            },
            "workerGroupSpecs": [
                {
                    "groupName": "workers",
                    "replicas": nodes - 1,
                    "minReplicas": nodes - 1,
                    "maxReplicas": nodes - 1,
                    "rayStartParams": _start(),
                    "template": _pod(template, config),
                }
            ],
        },
    }
    digest = hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:16]
    return {"metadata": {**metadata, "annotations": {_CLUSTER: digest}}, "spec": spec}


def stays(found: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Whether a RayService that is there has the pods that are wanted, and has not given up.

    KubeRay changes no pods of it, and Ray Serve tries no more once it gave up.
    """
    has, wants = ((each["metadata"].get("annotations") or {}).get(_CLUSTER) for each in (found, wanted))
    return bool(has == wants) and not refused(found.get("status", {}))


def head(obj: dict[str, Any]) -> dict[str, Any]:
    """The template of its head."""
    found: dict[str, Any] = obj["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]
    return found


def admitted(own: dict[str, str]) -> list[dict[str, Any]]:
    """Who else may connect to its pods (those with the labels `own`): each other, and KubeRay's operator."""
    operator = {"namespaceSelector": {}, "podSelector": {"matchLabels": _OPERATOR}}
    return [
        {"from": [{"podSelector": {"matchLabels": own}}]},
        {"from": [operator], "ports": [{"port": _DASHBOARD, "protocol": "TCP"}]},
    ]


def as_deployment(obj: dict[str, Any]) -> dict[str, Any]:
    """A RayService as a Deployment of one replica, which is ready when KubeRay says that the service is."""
    status = obj.get("status", {})
    ready = _condition(status, "Ready")
    answers = ready.get("status") == "True"
    why = refused(status) if not answers else ""
    failure = {"type": "ReplicaFailure", "status": "True", "reason": "RayService", "message": why}
    return {
        "kind": KIND,
        "metadata": obj["metadata"],
        "spec": {"replicas": 1, "template": head(obj)},
        "status": {
            "observedGeneration": status.get("observedGeneration", 0),
            "replicas": 1,
            "updatedReplicas": 1,
            "readyReplicas": int(answers),
            "conditions": [failure] if why else [],
            "words": words(status),
        },
    }


def refused(status: dict[str, Any]) -> str:
    """Why it will not answer as it is: KubeRay does not take it, or Ray Serve gave up."""
    ready = _condition(status, "Ready")
    if ready.get("reason") == "ValidationFailed":
        return str(ready.get("message", ""))
    return next((said[-_SAID:] for state, said in _applications(status) if state == "DEPLOY_FAILED"), "")


def words(status: dict[str, Any]) -> list[dict[str, Any]]:
    """What the server said of itself as it failed to start, out of Ray Serve's longer text."""
    found = []
    for _, said in _applications(status):
        at = said.rfind('{"reason"')
        with contextlib.suppress(ValueError):
            word, _ = json.JSONDecoder().raw_decode(said[at:] if at >= 0 else "")
            found.append(word if isinstance(word, dict) else {})
    return found


def _serve(application: str, config: str, port: int) -> dict[str, Any]:
    """Ray Serve's config: one application, whose HTTP is on the head alone."""
    served = {"name": "default", "route_prefix": "/", "import_path": application, "args": {"config": config}}
    return {
        "proxy_location": "HeadOnly",
        "http_options": {"host": "0.0.0.0", "port": port},  # noqa: S104 - the port that is for others
        "applications": [served],
    }


def _start() -> dict[str, str]:
    return {"num-cpus": "4", "object-store-memory": str(_STORE_BYTES)}


def _ports(served: int) -> list[dict[str, Any]]:
    """The head's, by the names that KubeRay looks for: where one is given, it adds none of the others."""
    numbers = {"gcs-server": _GCS, "dashboard": _DASHBOARD, "serve": served}
    return [{"name": key, "containerPort": number} for key, number in numbers.items()]


def _pod(template: dict[str, Any], config: str, ports: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    """A pod whose weights are there before Ray starts; KubeRay writes the command and the head's probes."""
    made = copy.deepcopy(template)
    spec = made["spec"]
    (container,) = spec["containers"]
    settled = ("image", "imagePullPolicy", "env", "volumeMounts", "securityContext", "terminationMessagePolicy")
    fetch = {key: container[key] for key in settled if key in container}
    fetches = {"name": FETCHES, "command": ["python3", "-m"], "args": ["serving", "--fetch", config], **fetch}
    spec["initContainers"] = [fetches]
    kept = {key: container[key] for key in ("name", "resources", *settled) if key in container}
    kept["env"] = [*(one for one in kept["env"] if one["name"] != "RAY_AUTH_TOKEN"), *_environment()]
    kept["ports"] = ports or []
    if ports is None:  # KubeRay's own asks a worker for the HTTP that the head alone has
        kept["readinessProbe"] = {
            "httpGet": {"path": "/api/healthz", "port": _AGENT},
            "periodSeconds": 5,
            "timeoutSeconds": 5,
        }
    spec["containers"] = [kept]
    return made


def _environment() -> list[dict[str, str]]:
    """What Ray reads when it starts."""
    said = {
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # the replica asks Ray for no GPU and counts the pod's
        "RAY_LOG_TO_STDERR": "1",  # or what vLLM says is in files of the pod's alone
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",
    }
    return [{"name": key, "value": value} for key, value in said.items()]


def _condition(status: dict[str, Any], kind: str) -> dict[str, Any]:
    return next((each for each in status.get("conditions", []) if each["type"] == kind), {})


def _applications(status: dict[str, Any]) -> list[tuple[str, str]]:
    """State and words of each application, with those of its deployments."""
    found = []
    for part in ("activeServiceStatus", "pendingServiceStatus"):
        for application in (status.get(part, {}).get("applicationStatuses") or {}).values():
            deployments = (application.get("serveDeploymentStatuses") or {}).values()
            said = " ".join(filter(None, (each.get("message", "") for each in (application, *deployments))))
            found.append((application.get("status", ""), said))
    return found
