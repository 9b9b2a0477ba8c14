"""What is seen in the cluster for one Workspace, and the reading of Argo's and the kubelet's words."""

import base64
import dataclasses
import datetime
import gzip
import json
import re
from typing import Any

from kaito_hera import names

Object = dict[str, Any]

DONE = frozenset({"Succeeded", "Failed", "Error"})
_JOB = "batch.kubernetes.io/job-name"
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,99}")
_ATTEMPT = re.compile(r"[0-9]{1,6}")
_NO_IMAGE = "InvalidImageName"
"""What the kubelet says of an image that no registry could ever have, and says for ever."""
_RENAME = "; write HOST/REPOSITORY:TAG, a repository in lower-case letters"
_STEP_TYPES = frozenset({"Pod", "Retry", "Skipped"})


@dataclasses.dataclass(frozen=True)
class Live:
    """Every object of one Workspace, as the watches last saw it."""

    now: datetime.datetime
    workflows: tuple[Object, ...] = ()
    jobs: tuple[Object, ...] = ()
    deployments: tuple[Object, ...] = ()
    pods: tuple[Object, ...] = ()
    nodes: tuple[Object, ...] = ()
    beside: tuple[Object, ...] = ()
    """Kind and metadata of what stands beside its server: Service, ConfigMaps, NetworkPolicy."""

    def of(self, uid: str) -> "Live":
        """Without what belongs to an earlier Workspace of the same name; nodes that were brought carry no uid."""

        def mine(objects: tuple[Object, ...]) -> tuple[Object, ...]:
            return tuple(obj for obj in objects if (obj["metadata"].get("labels") or {}).get(names.UID, uid) == uid)

        return Live(
            now=self.now,
            workflows=mine(self.workflows),
            jobs=mine(self.jobs),
            deployments=mine(self.deployments),
            pods=mine(self.pods),
            nodes=mine(self.nodes),
            beside=mine(self.beside),
        )

    def workflow(self, name: str) -> Object | None:
        """The Workflow of that name."""
        return next((w for w in self.workflows if w["metadata"]["name"] == name), None)

    def pods_of(self, role: str, *, job: str = "") -> list[Object]:
        """The pods with that role, of one Job or of all, the newest last."""
        wanted = {names.ROLE: role} | ({_JOB: job} if job else {})
        found = [pod for pod in self.pods if wanted.items() <= pod["metadata"]["labels"].items()]
        return sorted(found, key=lambda pod: str(pod["metadata"].get("creationTimestamp")))


@dataclasses.dataclass(frozen=True)
class Step:
    """One step of a Workflow, its tries taken together."""

    name: str
    phase: str
    message: str
    started_at: str
    finished_at: str
    outputs: dict[str, str]


@dataclasses.dataclass(frozen=True)
class Reason:
    """Why something failed, in the words of who failed."""

    reason: str
    message: str
    retryable: bool
    known: bool = True
    """False when nothing was said and only the end was seen."""


TAKEN = frozenset({"Evicted", "NodeLost"})
"""Reasons of a Job whose node was taken away from under it."""


def phase(workflow: Object) -> str:
    """Argo's phase; empty until Argo took it up."""
    return str(workflow.get("status", {}).get("phase", ""))


def attempt(obj: Object) -> int:
    """The attempt that a Workflow or Job belongs to; 0 for one whose label, which users may edit, says nothing."""
    label = str((obj["metadata"].get("labels") or {}).get(names.ATTEMPT, ""))
    return int(label) if _ATTEMPT.fullmatch(label) else 0


def is_done(workflow: Object) -> bool:
    """Whether the Workflow has ended. A user may press Retry, so this can become False again."""
    return phase(workflow) in DONE


def steps(workflow: Object) -> dict[str, Step]:
    """The steps that Argo has begun or skipped, by name, in the order in which they began."""
    tree = _nodes(workflow)
    found = [
        _step(node, tree)
        for node in tree.values()
        if node.get("type") in _STEP_TYPES and not _is_try(node, tree) and not node.get("nodeFlag", {}).get("hooked")
    ]
    return {step.name: step for step in sorted(found, key=lambda step: step.started_at)}


def failure(workflow: Object) -> Reason | None:
    """Why an ended Workflow failed; None when it did not, or was stopped on purpose."""
    if phase(workflow) not in {"Failed", "Error"} or workflow.get("spec", {}).get("shutdown"):
        return None
    for step in reversed(steps(workflow).values()):
        if step.phase in {"Failed", "Error"}:
            return reason(step.message)
    message = workflow.get("status", {}).get("message", "no reason given")
    return Reason("WorkflowFailed", f"Workflow {workflow['metadata']['name']}: {message}", retryable=True, known=False)


def reason(message: str) -> Reason:
    """The reason in a node's message, `main: Error (exit code 70): {json}`, or the message itself."""
    _, brace, rest = message.partition("{")
    try:
        word = json.loads(brace + rest)
        said = Reason(word["reason"], str(word["message"]), retryable=bool(word["retryable"]))
        known = _WORD.fullmatch(said.reason) is not None  # a user's own pod may say anything
    except (ValueError, KeyError, TypeError):
        known = False
    return said if known else Reason("StepFailed", message or "no reason given", retryable=True, known=False)


def waiting(pod: Object) -> Reason | None:
    """Why a pod does not run, as far as the scheduler and the kubelet say; None when nothing is wrong."""
    status = pod.get("status", {})
    for condition in status.get("conditions", []):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return Reason("Unschedulable", condition.get("message", ""), retryable=True)
    for container in [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]:
        state = container.get("state", {}).get("waiting") or {}
        if state.get("reason") in {"ContainerCreating", "PodInitializing", None}:
            continue
        end = container.get("lastState", {}).get("terminated") or {}
        last = end.get("message", "")
        said = reason(last) if last else Reason("", state.get("message", "") + _ending(end), retryable=True)
        if said.known and said.reason:
            return said
        final = state["reason"] == _NO_IMAGE
        text = (said.message or state["reason"]) + (_RENAME if final else "")
        return Reason(_image_reason(state["reason"]), text, retryable=not final)
    return None


def lacks(pod: Object, name: str) -> bool:
    """Whether a container of it waits for the object of that name, which is not there."""
    states = [c.get("state", {}).get("waiting") or {} for c in pod.get("status", {}).get("containerStatuses", [])]
    said = [s.get("message", "") for s in states if s.get("reason") == "CreateContainerConfigError"]
    return any(f'"{name}" not found' in message for message in said)


def replicas(deployment: Object) -> tuple[int, int]:
    """How many are ready, and how many are wanted."""
    return deployment.get("status", {}).get("readyReplicas", 0), deployment["spec"].get("replicas", 1)


def refused(deployment: Object) -> str:
    """Why a Deployment's pods cannot even be made: a quota, Pod Security, a missing service account."""
    conditions = {c["type"]: c for c in deployment.get("status", {}).get("conditions", []) if c["status"] == "True"}
    return str(conditions.get("ReplicaFailure", {}).get("message", ""))


def is_ready(obj: Object) -> bool:
    """Whether the condition Ready of a node or pod is True."""
    conditions = obj.get("status", {}).get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def _ending(end: Object) -> str:
    """How a container that left no word ended."""
    return f"; it ended with exit code {end.get('exitCode')} ({end.get('reason', 'no reason')})" if end else ""


def _image_reason(reason: str) -> str:
    """KAITO's reasons for what the kubelet says."""
    if reason in {"ImagePullBackOff", "ErrImagePull", _NO_IMAGE, "ErrImageNeverPull", "RegistryUnavailable"}:
        return "ImagePullError"
    if reason == "CrashLoopBackOff":
        return "ContainerCrashLoopBackOff"
    return "ContainerStartError"


def _nodes(workflow: Object) -> dict[str, Object]:
    """The Workflow's node tree; Argo packs it when it is large."""
    status = workflow.get("status", {})
    nodes: dict[str, Object] = status.get("nodes") or {}
    if not nodes and (packed := status.get("compressedNodes")):
        nodes = json.loads(gzip.decompress(base64.b64decode(packed)))
    return nodes


def _is_try(node: Object, tree: dict[str, Object]) -> bool:
    """Whether a node is one try of a step: `train(0)` below the Retry node `train`."""
    parent = node.get("displayName", "").rpartition("(")[0]
    return bool(parent) and any(n.get("type") == "Retry" and n.get("displayName") == parent for n in tree.values())


def _step(node: Object, tree: dict[str, Object]) -> Step:
    last = node
    if node.get("type") == "Retry":
        tries = [tree[child] for child in node.get("children", []) if child in tree]
        last = max(tries, key=lambda child: str(child.get("startedAt")), default=node)
    synced = last.get("taskResultSynced") is not False
    return Step(
        name=node.get("displayName", ""),
        phase=node.get("phase", "") if synced or node.get("phase") != "Succeeded" else "Running",
        message=last.get("message") or node.get("message", ""),
        started_at=node.get("startedAt") or "",
        finished_at=node.get("finishedAt") or "",
        outputs={p["name"]: p.get("value", "") for p in last.get("outputs", {}).get("parameters", [])},
    )
