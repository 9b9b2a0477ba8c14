"""Objects for tests, as the API server would send them."""

import copy
import datetime
import json

from kaito_hera import api, intent, names
from kaito_hera.live import Live
from kaito_hera.settings import Settings

NOW = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
UID = "11111111-2222-3333-4444-555555555555"


def ago(seconds):
    return (NOW - datetime.timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def inference(**metadata):
    return _workspace({"inference": {"preset": {"name": "phi-3-mini-4k-instruct"}}}, metadata)


def tuning(**metadata):
    return _workspace(
        {
            "tuning": {
                "preset": {"name": "phi-3-mini-4k-instruct"},
                "method": "qlora",
                "input": {"urls": ["https://example.com/data.parquet"]},
                "output": {"image": "team.azurecr.io/adapter:1", "imagePushSecret": "push"},
            }
        },
        metadata,
    )


def tuning_only(**metadata):
    return tuning(annotations={api.SERVE_ANNOTATION: "false"}, **metadata)


def _workspace(body, metadata):
    return {
        "apiVersion": "kaito.sh/v1beta1",
        "kind": "Workspace",
        "metadata": {
            "name": "w",
            "namespace": "team",
            "uid": UID,
            "generation": 1,
            "resourceVersion": "7",
            "finalizers": [api.FINALIZER],
            **metadata,
        },
        "resource": {
            "instanceType": "Standard_NC24ads_A100_v4",
            "labelSelector": {"matchLabels": {"app": "phi"}},
        },
        **body,
    }


def edited(workspace, *, generation=2, **changes):
    """The Workspace after an edit: `instanceType="..."` in resource, or whole parts by name."""
    after = copy.deepcopy(workspace)
    after["metadata"]["generation"] = generation
    for name, value in changes.items():
        target = after["resource"] if name in {"instanceType", "count", "labelSelector"} else after
        target[name] = value
    return after


def parsed(workspace):
    return api.Workspace.parse(workspace)


def workflow(workspace, attempt=1, *, kind="serve", phase="Running", shutdown=None, age=10, **steps):
    """An Argo Workflow; each step is a phase, or (phase, message), or (phase, message, outputs)."""
    w = parsed(workspace)
    nodes = {}
    for at, (name, said) in enumerate(steps.items()):
        step_phase, message, outputs = _said(*([said] if isinstance(said, str) else said))
        display = name.replace("_", "-")
        times = {"startedAt": ago(age - at), "finishedAt": ago(age - at - 1)}
        nodes[display] = {
            "displayName": display,
            "type": "Retry",
            "phase": step_phase,
            "children": [f"{display}(0)"],
            **times,
        }
        nodes[f"{display}(0)"] = {
            "displayName": f"{display}(0)",
            "type": "Pod",
            "phase": step_phase,
            "message": message,
            "outputs": {"parameters": [{"name": key, "value": value} for key, value in outputs.items()]},
            **times,
        }
    status = {"phase": phase, "nodes": nodes} if phase else {}
    if phase in {"Succeeded", "Failed", "Error"}:
        status["finishedAt"] = ago(1)
    return {
        "metadata": {
            "name": names.workflow(w, attempt),
            "namespace": "kaito-hera",
            "labels": {**names.labels(w), names.WORKFLOW: kind, names.ATTEMPT: str(attempt)},
            "annotations": {names.INTENT: intent.of(w).dump()},
            "creationTimestamp": ago(age),
        },
        "spec": {"shutdown": shutdown} if shutdown else {},
        "status": status,
    }


def _said(phase, message="", outputs=None):
    return phase, message, outputs or {}


def failed_message(reason, message, *, retryable):
    said = json.dumps({"reason": reason, "message": message, "retryable": retryable})
    return f"main: Error (exit code {75 if retryable else 70}): {said}"


def job(workspace, attempt=1, *, role="tuning", namespace="team", succeeded=0, failed=0, progress=None):
    w = parsed(workspace)
    name = names.job(w, attempt) if role == "tuning" else f"{w.metadata.name}-{role}"
    return {
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {**names.labels(w), names.ROLE: role, names.ATTEMPT: str(attempt)},
            "annotations": {names.PROGRESS: json.dumps(progress)} if progress else {},
            "creationTimestamp": ago(5),
        },
        "spec": {"activeDeadlineSeconds": Settings().tuning_timeout_seconds},
        "status": {"succeeded": succeeded, "failed": failed},
    }


def pod(workspace, role, *, phase="Running", workflow=None, attempt=1, statuses=(), conditions=()):
    w = parsed(workspace)
    labels = {**names.labels(w), names.ROLE: role}
    if role == "tuning":
        labels["batch.kubernetes.io/job-name"] = names.job(w, attempt)
    if workflow:
        labels["workflows.argoproj.io/workflow"] = workflow
    return {
        "metadata": {"name": f"{role}-pod", "namespace": "team", "labels": labels, "creationTimestamp": ago(5)},
        "status": {"phase": phase, "containerStatuses": list(statuses), "conditions": list(conditions)},
    }


def deployment(workspace, *, ready=1, replicas=1):
    w = parsed(workspace)
    return {
        "metadata": {"name": w.metadata.name, "namespace": "team", "labels": names.labels(w)},
        "spec": {"replicas": replicas},
        "status": {"readyReplicas": ready},
    }


def node(
    workspace=None, *, name="node-1", ready=True, gpus=1, size="Standard_NC24ads_A100_v4", labels=None, **metadata
):
    own = names.labels(parsed(workspace)) if workspace else {}
    return {
        "metadata": {
            "name": name,
            "uid": f"uid-{name}",
            "creationTimestamp": ago(8),
            "labels": {"node.kubernetes.io/instance-type": size, **own, **(labels or {})},
            **metadata,
        },
        "spec": {},
        "status": {
            "conditions": [
                {"type": "Ready", "status": "True" if ready else "False", "reason": "KubeletNotReady", "message": "cni"}
            ],
            "allocatable": {"nvidia.com/gpu": str(gpus)},
        },
    }


def beside(server):
    """What was rolled out with a server, as the watches keep it."""
    metadata = server["metadata"]
    files = names.fit(metadata["name"], "-serving")
    named = {"Service": metadata["name"], "ConfigMap": files, "NetworkPolicy": files}
    return [{"kind": kind, "metadata": {**metadata, "name": name}} for kind, name in named.items()]


def live(**objects):
    objects.setdefault("beside", [obj for server in objects.get("deployments", ()) for obj in beside(server)])
    return Live(now=NOW, **{kind: tuple(found) for kind, found in objects.items()})
