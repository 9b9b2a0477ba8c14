"""The only function that acts, and the only writer of status. It may run at any time, twice, and after a crash.

`observe` says what is, `decide` what to do; here it is done. A status write carries the resourceVersion that was read,
so a stale view writes nothing and is tried again with a fresh one.
"""

import logging
from typing import Any, Protocol

import pydantic

from kaito_hera import actions, api, decide, errors, invalid, names, runtimes
from kaito_hera import cluster as clusters
from kaito_hera.api import Workspace
from kaito_hera.intent import Parts
from kaito_hera.live import Live, Object
from kaito_hera.observe import observe
from kaito_hera.settings import Settings
from kaito_hera.status import DataStatus, ModelStatus, NodesStatus, Status, WorkflowStatus

log = logging.getLogger(__name__)


class Planner(Protocol):
    """`workflows.plan.plan`: the manifest of an attempt. Handed in, since imports point down."""

    def __call__(
        self,
        workspace: Workspace,
        settings: Settings,
        *,
        attempt: int,
        parts: Parts | None,
        adapter: str = "",
        nodes: NodesStatus | None = None,
        model: ModelStatus | None = None,
        data: DataStatus | None = None,
    ) -> dict[str, Any]:
        """The Workflow for these parts; None is a release."""


class Reconciler:
    """Brings one Workspace after another closer to what its user asked for."""

    def __init__(self, cluster: clusters.Cluster, settings: Settings, plan: Planner) -> None:
        self._cluster = cluster
        self._settings = settings
        self._plan = plan

    def reconcile(self, obj: Object | None, seen: Live) -> float | None:
        """Do what is to be done for the Workspace `obj`, seen with its objects; seconds until the next look, if any."""
        return self._step(obj, seen.of(obj["metadata"]["uid"])) if obj else None

    def _step(self, obj: Object, seen: Live) -> float | None:
        workspace = self._read(obj, seen)
        if workspace is None:
            return None
        before, asks = Status.of(obj), runtimes.heeded(workspace, self._settings)
        current = observe(asks, before, seen, self._settings)
        try:
            if current != before and self._write(workspace, current) != workspace:
                log.info("%s: %s", workspace.key, _story(before, current))
                return None  # the write comes back as an event, with the version that the next write needs
        except clusters.InvalidObjectError:
            if workspace.metadata.deletion_timestamp is None:
                raise
            log.exception("%s: a bug, a status that cannot be stored; released all the same", workspace.key)
            current = before.model_copy(update={"workflow": current.workflow})
        looks: list[float] = []
        for action in decide.decide(asks, current, seen, self._settings):
            log.debug("%s: %s", workspace.key, action)
            if isinstance(action, actions.LookAgain):
                looks.append(action.seconds)
            else:
                self._do(action, workspace, current, seen)
        return min(looks, default=None)

    def _read(self, obj: Object, seen: Live) -> Workspace | None:
        """The Workspace, or None for one that is refused: of that nothing is made, but it can be deleted."""
        leaving = "deletionTimestamp" in obj["metadata"]
        try:
            workspace = Workspace.parse(obj)
        except pydantic.ValidationError as cause:
            if leaving:  # of another version's CRD: who it is is all that a release needs
                return Workspace.bare(api.Metadata.model_validate(obj["metadata"]), obj["apiVersion"])
            self._refuse(obj, seen, invalid.words(cause))
            return None
        if not leaving and (broken := workspace.broken(as_new=True)):  # KAITO took it
            self._refuse(obj, seen, "; ".join(broken))
            return None
        return workspace

    def _do(self, action: actions.Action, workspace: Workspace, current: Status, seen: Live) -> None:
        metadata, namespace = workspace.metadata, self._settings.namespace
        match action:
            case actions.AddFinalizer():
                self._set_finalizers(workspace, (*metadata.finalizers, api.FINALIZER))
            case actions.RemoveFinalizer():
                self._set_finalizers(workspace, tuple(f for f in metadata.finalizers if f != api.FINALIZER))
            case actions.Start(parts, failures):
                attempt = decide.next_attempt(current, seen)
                started = _started(runtimes.heeded(workspace, self._settings), parts, attempt, failures)
                recorded = current.model_copy(update={"workflow": started})
                self._create(self._write(workspace, recorded), recorded, parts)
            case actions.Create(parts):
                self._create(workspace, current, parts)
            case actions.Stop(workflow):
                self._confirm(workspace)
                self._stop(workflow)
            case actions.DeleteWorkflow(workflow):
                self._confirm(workspace)
                self._cluster.delete(clusters.WORKFLOW, workflow, namespace)
            case actions.DeleteJob(where, job):
                self._confirm(workspace)
                self._cluster.delete(clusters.JOB, job, where, foreground=True)
            case actions.SetDeadline(where, job, seconds):
                self._confirm(workspace)
                self._cluster.patch(clusters.JOB, job, where, {"spec": {"activeDeadlineSeconds": seconds}})
            case actions.ReleaseWithoutArgo():
                self._release_without_argo(workspace)

    def _create(self, workspace: Workspace, current: Status, parts: Parts) -> None:
        """Create the Workflow of the recorded attempt; why it cannot be made goes into status."""
        recorded = current.workflow
        assert recorded is not None
        adapter = current.tuning.adapter_image if current.tuning else ""
        todo = None if recorded.kind == "release" else parts
        manifest = self._plan(
            workspace,
            self._settings,
            attempt=recorded.attempt,
            parts=todo,
            adapter=adapter,
            nodes=current.nodes,
            model=current.model,
            data=current.data,
        )
        try:
            self._cluster.create(clusters.WORKFLOW, manifest)
        except clusters.ConflictError:
            return  # an earlier try of ours
        except errors.KaitoError as cause:
            told = recorded.model_copy(update={"message": f"{cause.reason}: {cause}"})
            self._write(workspace, current.model_copy(update={"workflow": told}))
            raise
        log.info("%s: started %s", workspace.key, manifest["metadata"]["name"])

    def _confirm(self, workspace: Workspace) -> None:
        """Before something is taken away: this is the newest Workspace, which may name an attempt just begun."""
        metadata = workspace.metadata
        newest = self._cluster.get(clusters.WORKSPACE, metadata.name, metadata.namespace)
        if newest is None or newest["metadata"]["resourceVersion"] != metadata.resource_version:
            raise clusters.ConflictError(f"Workspace {workspace.key} has changed since it was seen")

    def _stop(self, workflow: str) -> None:
        namespace = self._settings.namespace
        patch = {"spec": {"shutdown": "Terminate"}}
        self._cluster.patch(clusters.WORKFLOW, workflow, namespace, patch)
        for pod in self._cluster.items(clusters.POD, namespace, labels=f"workflows.argoproj.io/workflow={workflow}"):
            self._cluster.delete(clusters.POD, pod["metadata"]["name"], namespace)

    def _release_without_argo(self, workspace: Workspace) -> None:
        """The release step as a Job: its pod is taken from the Workflow that Argo would run."""
        manifest = self._plan(workspace, self._settings, attempt=1, parts=None)
        job = release_job(workspace, self._settings, manifest)
        try:
            self._cluster.create(clusters.JOB, job)
        except clusters.ConflictError:
            return
        log.warning("%s: Argo does not answer, Job %s releases", workspace.key, job["metadata"]["name"])

    def _set_finalizers(self, workspace: Workspace, finalizers: tuple[str, ...]) -> None:
        metadata = workspace.metadata
        patch = {"metadata": {"resourceVersion": metadata.resource_version, "finalizers": list(finalizers)}}
        self._cluster.patch(clusters.WORKSPACE, metadata.name, metadata.namespace, patch)

    def _write(self, workspace: Workspace, after: Status) -> Workspace:
        """Store the status; the Workspace with the version that the next write needs."""
        metadata = workspace.metadata
        body = {"metadata": {"resourceVersion": metadata.resource_version}, "status": after.dump()}
        stored = self._cluster.patch(clusters.WORKSPACE, metadata.name, metadata.namespace, body, subresource="status")
        return Workspace.parse(stored)

    def _refuse(self, obj: Object, seen: Live, why: str) -> None:
        """Say so, and touch nothing: of the rest of its status, another version's or KAITO's, nothing is known."""
        before, after = Status.of(obj), invalid.observe(obj, seen, why)
        if after == before:
            return
        metadata = obj["metadata"]
        told = {"conditions": after.dump()["conditions"]}
        body = {"metadata": {"resourceVersion": metadata["resourceVersion"]}, "status": told}
        name, namespace = metadata["name"], metadata["namespace"]
        self._cluster.patch(clusters.WORKSPACE, name, namespace, body, subresource="status")


def release_job(workspace: Workspace, settings: Settings, manifest: dict[str, Any]) -> dict[str, Any]:
    """The release step of a Workflow as a plain Job in the operator's namespace."""
    spec = manifest["spec"]
    script = next(template["script"] for template in spec["templates"] if "script" in template)
    values = {parameter["name"]: parameter["value"] for parameter in spec["arguments"]["parameters"]}
    container = {
        **{key: script[key] for key in ("env", "resources", "securityContext", "volumeMounts")},
        "name": "release",
        "image": values["operator-image"],
        "command": ["python3", "-m", "workflows", "release"],
        "env": [*script["env"], *(_variable(key.upper(), values[key]) for key in ("workspace", "settings"))],
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    labels = {**names.labels(workspace), names.ROLE: "release"}
    pod = {
        "restartPolicy": "OnFailure",
        "serviceAccountName": spec["serviceAccountName"],
        "securityContext": spec["securityContext"],
        "imagePullSecrets": spec.get("imagePullSecrets", []),
        "volumes": spec["volumes"],
        "containers": [container],
    }
    return {
        "apiVersion": clusters.JOB.api_version,
        "kind": clusters.JOB.name,
        "metadata": {"name": names.release_job(workspace), "namespace": settings.namespace, "labels": labels},
        "spec": {"backoffLimit": 100, "template": {"metadata": {"labels": labels}, "spec": pod}},
    }


def _variable(name: str, value: str) -> dict[str, str]:
    """An environment variable as it is: the kubelet expands `$(NAME)` in one."""
    return {"name": name, "value": value.replace("$(", "$$(")}


def _started(workspace: Workspace, parts: Parts, attempt: int, failures: int) -> WorkflowStatus:
    return WorkflowStatus(
        name=names.workflow(workspace, attempt),
        kind="tune" if parts.tune else "push" if parts.push else "serve" if parts else "release",
        attempt=attempt,
        generation=workspace.metadata.generation,
        annotated=workspace.annotated,
        failures=failures,
    )


def _story(before: Status, after: Status) -> str:
    """What changed, for the log: conditions that flipped, the step."""
    flips = [
        f"{c.type}={c.status} ({c.reason}{': ' + c.message if c.message else ''})"
        for c in after.conditions
        if not (old := before.condition(c.type)) or (old.status, old.reason) != (c.status, c.reason)
    ]
    step = f"step {after.step.name}" if after.step and (not before.step or before.step.name != after.step.name) else ""
    return "; ".join([*flips, *([step] if step else [])]) or "details"
