"""Jobs in the user's namespace: made once per attempt, then followed to their end, as often as asked.

A Job answers with its pod's termination message, JSON of its own or {"reason", "message", "retryable"}, and reports on
the way with log lines that `read` understands. What the Job does is not known here.
"""

import dataclasses
import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from kaito_hera import cluster as clusters
from kaito_hera import errors, live, names, pods
from kaito_hera.api import Workspace
from kaito_hera.run import Run

_AWAY = 5.0  # seconds between looks for an API server that does not answer
_DENIED = 600.0  # seconds that a right may be missing
_ENDED = frozenset({"Succeeded", "Failed"})


class Progress(Protocol):
    """A progress line, understood."""

    @property
    def percent(self) -> int:
        """Of the whole run."""

    def model_dump_json(self, *, exclude_none: bool = False) -> str:
        """As it is written to the Job."""


@dataclasses.dataclass(frozen=True)
class Task:
    """One Job to be run."""

    name: str
    role: str
    attempt: int
    template: dict[str, Any]
    seconds: int
    """How long it may take."""


def manifest(workspace: Workspace, task: Task) -> dict[str, Any]:
    """The Job: one pod, never tried again by Kubernetes, since the next attempt may need other nodes."""
    metadata = pods.metadata(workspace, task.name, role=task.role)
    metadata["labels"] |= {names.ATTEMPT: str(task.attempt)}
    spec = {"restartPolicy": "Never", **task.template["spec"]}
    lost = [
        {"key": f"node.kubernetes.io/{state}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 30}
        for state in ("unreachable", "not-ready")
    ]
    spec["tolerations"] = [*spec.get("tolerations", []), *lost]
    return {
        "apiVersion": clusters.JOB.api_version,
        "kind": clusters.JOB.name,
        "metadata": metadata,
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": task.seconds,
            "template": {**task.template, "spec": spec},
        },
    }


def run(
    run: Run, task: Task, *, read: Callable[[str], Progress | None] | None = None, pause: float = 10.0
) -> dict[str, Any]:
    """Create the Job or find it, follow it, return its answer; raises what it said went wrong.

    `read` turns a log line into progress, which becomes Argo's and, at most every `pause` seconds, an annotation on the
    Job. An API server that is away is waited for: the Job runs on without it, and giving up would end it.
    """
    cluster, namespace = run.cluster, run.workspace.metadata.namespace
    try:
        cluster.create(clusters.JOB, manifest(run.workspace, task))
    except clusters.ConflictError:
        pods.refuse_foreign(cluster.get(clusters.JOB, task.name, namespace), run.workspace, "Job")
    teller = _Teller(cluster, namespace, task, read=read, pause=pause) if read else None
    job, pod = _await_end(run, task, teller, pause)
    if teller:
        teller.finish()
    return _verdict(job, pod)


def _await_end(
    run: Run, task: Task, teller: "_Teller | None", pause: float
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The Job once it has ended, with its pod as it was last seen."""
    cluster, namespace, name = run.cluster, run.workspace.metadata.namespace, task.name
    patience = _Patience(f"Job {namespace}/{name}", run.settings.start_timeout_seconds)
    labels = f"batch.kubernetes.io/job-name={name}"
    pod: dict[str, Any] | None = None
    denied = _Denied()
    while True:
        try:
            page = cluster.page(clusters.POD, namespace, labels=labels)
            found = cluster.get(clusters.JOB, name, namespace)
        except (errors.ClusterUnavailableError, errors.ForbiddenError) as cause:
            denied.seen(cause)
            print(f"Job {namespace}/{name} runs on, unseen: {cause}", flush=True)
            time.sleep(min(pause, _AWAY))
            continue
        denied = _Denied()
        pod = page["items"][0] if page["items"] else pod
        if teller and pod and _phase(pod) != "Pending":
            teller.listen(pod["metadata"]["name"])
        if found is None:
            raise errors.SupersededError(f"Job {namespace}/{name} was deleted while it ran")
        if (pod and _phase(pod) in _ENDED) or _condition(found, "Failed") or _condition(found, "Complete"):
            return found, pod
        patience.spend(pod)
        cluster.await_change(clusters.POD, namespace, page, labels=labels, seconds=pause)


def exists(run: Run, task: Task) -> bool:
    """Whether the Job was made already."""
    return run.cluster.get(clusters.JOB, task.name, run.workspace.metadata.namespace) is not None


def _phase(pod: dict[str, Any]) -> str:
    return str(pod.get("status", {}).get("phase", "Pending"))


def _condition(obj: dict[str, Any], kind: str) -> dict[str, Any] | None:
    conditions = obj.get("status", {}).get("conditions", [])
    return next((c for c in conditions if c["type"] == kind and c["status"] == "True"), None)


def _verdict(job: dict[str, Any], pod: dict[str, Any] | None) -> dict[str, Any]:
    """The Job's answer, or the error that its end means: its own word, the deadline, a lost pod, a crash."""
    what = f"Job {job['metadata']['namespace']}/{job['metadata']['name']}"
    end = _terminated(pod)
    answer = _json(end.get("message", ""))
    if "reason" in answer:
        raise errors.reported(answer["reason"], answer.get("message", ""), retryable=bool(answer.get("retryable")))
    if end.get("exitCode") == 0:
        return answer
    failed = _condition(job, "Failed")
    if failed and failed.get("reason") == "DeadlineExceeded":
        limit = job["spec"]["activeDeadlineSeconds"]
        if pod and _phase(pod) == "Pending":  # whoever keeps it waiting, it is not the user's fault
            kept = live.waiting(pod) or live.Reason("NotStarted", "no reason given", retryable=True)
            raise errors.reported(kept.reason, f"{what} did not start within {limit} s: {kept.message}", retryable=True)
        raise errors.reported("DeadlineExceeded", f"{what} took longer than {limit} s", retryable=False)
    if not end or pod is None or _lost(pod):
        status = (pod or {}).get("status", {})
        why = status.get("message") or status.get("reason") or "its pod is gone"
        raise errors.reported("NodeLost", f"{what} lost its node: {why}; the next attempt takes over", retryable=True)
    if end.get("reason") == "OOMKilled":
        raise errors.reported("OOMKilled", f"{what} needs more main memory than its node has", retryable=False)
    tail = end.get("message", "")[-1500:]
    # Others know it by this name: nobody explained it, so it is not tried for ever.
    raise errors.reported("Crashed", f"{what} ended with exit code {end.get('exitCode')}: {tail}", retryable=True)


def _terminated(pod: dict[str, Any] | None) -> dict[str, Any]:
    statuses = (pod or {}).get("status", {}).get("containerStatuses") or [{}]
    end: dict[str, Any] = statuses[0].get("state", {}).get("terminated") or {}
    return end


def _lost(pod: dict[str, Any]) -> bool:
    """Whether the pod was taken away rather than ended by itself."""
    status = pod.get("status", {})
    return bool(_condition(pod, "DisruptionTarget")) or status.get("reason") in {"Evicted", "NodeLost", "Shutdown"}


def _json(text: str) -> dict[str, Any]:
    try:
        answer = json.loads(text)
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}


class _Denied:
    """Ends the wait for rights that do not come back; while they are given anew, as in an upgrade, the Job runs on."""

    def __init__(self) -> None:
        self._since: float | None = None

    def seen(self, cause: errors.KaitoError) -> None:
        """Raises a right's lack once it has lasted too long."""
        if not isinstance(cause, errors.ForbiddenError):
            return
        self._since = time.monotonic() if self._since is None else self._since
        if time.monotonic() - self._since > _DENIED:
            raise cause


class _Patience:
    """Ends the wait for a pod that does not start: it holds nodes, and what it waits for seems not to come."""

    def __init__(self, what: str, seconds: int) -> None:
        self._what = what
        self._seconds = seconds
        self._reason = ""
        self._since = 0.0

    def spend(self, pod: dict[str, Any] | None) -> None:
        """Look at the pod as it is now; raises once it has waited too long for the same reason."""
        kept = _kept(pod)
        reason = kept.reason if kept else ""
        if kept is None or reason != self._reason:
            self._reason, self._since = reason, time.monotonic()
        elif time.monotonic() - self._since > self._seconds:
            who = f"pod {pod['metadata']['name']}" if pod else "it"
            text = f"{self._what}: {who} has not got on for {self._seconds} s: {reason}: {kept.message}"
            raise errors.reported(reason, f"{text}; the next attempt takes over", retryable=True)


def _kept(pod: dict[str, Any] | None) -> live.Reason | None:
    """Why a pod does not run; None if it does, or nothing is known to be wrong."""
    if pod is None:
        return live.Reason(
            "NotStarted", "no pod was made; a quota may be full, see `kubectl describe job`", retryable=True
        )
    if _phase(pod) != "Pending":
        return None
    if kept := live.waiting(pod):
        return kept
    conditions = {c["type"]: c["status"] for c in pod.get("status", {}).get("conditions", [])}
    if conditions.get("PodReadyToStartContainers") == "False":  # before its image is pulled, which may well take long
        text = "its volumes or its network are not there, see `kubectl describe pod`"
        return live.Reason("ContainerStartError", text, retryable=True)
    return None


class _Teller:
    """Reads a pod's log in a thread of its own and passes progress on to Argo and to the Job."""

    def __init__(
        self,
        cluster: clusters.Cluster,
        namespace: str,
        task: Task,
        *,
        read: Callable[[str], Progress | None],
        pause: float,
    ) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._task = task
        self._read = read
        self._pause = pause
        self._thread: threading.Thread | None = None
        self._told: dict[str, Any] = {}  # later phases say less: what an earlier one said stays
        self._written: dict[str, Any] = {}
        self._written_at = 0.0
        self._since = ""

    def listen(self, pod: str) -> None:
        """Begin, or begin again after the stream broke off; harmless while it is being read."""
        self._annotate(self._pause)
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._follow, args=(pod,), daemon=True)
            self._thread.start()

    def finish(self) -> None:
        """The pod has ended: take what is left of its log."""
        if self._thread:
            self._thread.join(timeout=5.0)
        self._annotate(0.0)

    def _follow(self, pod: str) -> None:
        heard = self._since
        try:
            for line in self._cluster.logs(self._namespace, pod, container=self._task.role, since=heard):
                when, _, text = line.partition(" ")
                if when > heard:  # asked for by the second, so that lines come again
                    self._since = when
                    self._take(text)
        except errors.KaitoError:
            return  # the main thread starts another

    def _take(self, text: str) -> None:
        progress = self._read(text)
        if progress is None:
            print(text, flush=True)
            return
        self._told = self._told | json.loads(progress.model_dump_json(exclude_none=True))
        if file := os.environ.get("ARGO_PROGRESS_FILE"):
            Path(file).write_text(f"{progress.percent}/100\n", encoding="utf-8")

    def _annotate(self, pause: float) -> None:
        told = self._told
        if told == self._written or time.monotonic() - self._written_at < pause:
            return
        patch = {"metadata": {"annotations": {names.PROGRESS: json.dumps(told)}}}
        try:
            self._cluster.patch(clusters.JOB, self._task.name, self._namespace, patch)
        except errors.KaitoError:
            return  # progress is a courtesy; the next line tries again
        self._written, self._written_at = told, time.monotonic()
