"""The frame that all Workflows and steps share: names, labels, security, retries, and what the settings add to them.

A cluster's `workflowDefaults` are merged below what is set here. Set is what would break a Workflow of ours: identity,
security, deadline, and when it and its pods are removed. What places, ranks or accompanies pods is left to the platform
team (nodeSelector, tolerations, affinity, priority, parallelism, hooks, onExit, ...): to Argo an empty value is none.
"""

import contextvars
import functools
import json
import re
import sys
from collections.abc import Callable
from typing import Any, Literal, ParamSpec, TypeVar

from hera.workflows import Parameter, Workflow, script
from hera.workflows import models as argo

from kaito_hera import api, errors, intent, names, runtimes
from kaito_hera.pods import USER
from kaito_hera.settings import Settings

SERVICE_ACCOUNT = "kaito-hera-steps"
ENTRYPOINT = "main"
"""Not the kind's name: there is a step called release."""
_OUTPUTS = "/tmp/hera-outputs/parameters"  # noqa: S108 - Hera's own place, on the pod's emptyDir
_CA_FOLDER = "/etc/kaito/ca"
_AZURE_FOLDER = "/var/run/secrets/azure/tokens"
_LONGEST = 100 * 24 * 3600
"""Seconds: more than nodes, tuning and server may be given together, each of which has a deadline of its own."""
_P = ParamSpec("_P")
_R = TypeVar("_R")

Kind = Literal["serve", "tune", "push", "release"]

_DIED = "lastRetry.status == 'Error' || lastRetry.exitCode in ['-1', '137', '143']"
"""Argo retries only a step's own death: deleted, evicted, killed. What a step reports is for `reconcile`."""


_HARDENED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
_EXECUTOR = {
    "initContainers": [{"name": "init", "securityContext": _HARDENED}],
    "containers": [{"name": "wait", "securityContext": _HARDENED}],
}
"""Argo's own containers beside a step; without this the namespace could not enforce Pod Security `restricted`."""


_KEPT = argo.TTLStrategy.model_validate(
    {f"secondsAfter{end}": 10 * 365 * 24 * 3600 for end in ("Completion", "Success", "Failure")}
)
"""As good as for ever: `reconcile` deletes what it has read the end of. Three, as a default may be any of them."""

_SAME: dict[str, Any] = {
    "entrypoint": ENTRYPOINT,
    "service_account_name": SERVICE_ACCOUNT,
    "automount_service_account_token": True,
    "security_context": argo.PodSecurityContext(
        run_as_non_root=True,
        run_as_user=USER,
        run_as_group=USER,
        fs_group=USER,
        seccomp_profile=argo.SeccompProfile(type="RuntimeDefault"),
    ),
    "pod_spec_patch": json.dumps(_EXECUTOR),
    "pod_gc": argo.PodGC(strategy="OnPodSuccess", delete_delay_duration="600s"),
    "active_deadline_seconds": _LONGEST,
    "ttl_strategy": _KEPT,
    "archive_logs": False,
}
"""What every Workflow has, whatever it is for."""


def output(name: str, *, default: str) -> Parameter:
    """An output parameter; the default stands in when the step fails or is skipped, or Argo calls it an error."""
    return Parameter(name=name, value_from=argo.ValueFrom(path=f"{_OUTPUTS}/{name}", default=default))


def step(function: Callable[_P, _R]) -> Callable[..., Any]:
    """Make a function a step, run by Hera's runner in the operator's image; known errors leave reason and exit code."""
    return script(
        constructor="runner",
        image="{{workflow.parameters.operator-image}}",
        image_pull_policy="IfNotPresent",
        command=["python3"],
        env=[argo.EnvVar(name="HOME", value="/tmp"), argo.EnvVar(name="PYTHONUNBUFFERED", value="1")],  # noqa: S108
        volume_mounts=[argo.VolumeMount(name="tmp", mount_path="/tmp")],  # noqa: S108
        security_context=argo.SecurityContext.model_validate(_HARDENED),
        resources=argo.ResourceRequirements(
            requests={"cpu": argo.Quantity(root="50m"), "memory": argo.Quantity(root="96Mi")},
            limits={"memory": argo.Quantity(root="512Mi")},
        ),
        retry_strategy=argo.RetryStrategy(
            limit=argo.IntOrString(root="5"),
            expression=_DIED,
            backoff=argo.Backoff(duration="2", factor=argo.IntOrString(root=2), max_duration="5m"),
        ),
    )(_reporting(function))


def _reporting(function: Callable[_P, _R]) -> Callable[_P, _R]:
    @functools.wraps(function)
    def wrapped(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return function(*args, **kwargs)
        except errors.KaitoError as error:
            print(f"{error.reason}: {error}", file=sys.stderr, flush=True)  # noqa: T201 - the step's log
            errors.write_termination_message(error)
            sys.exit(error.exit_code)

    return wrapped


def asked(workflow: Workflow) -> dict[str, Any]:
    """The arguments that every step gets."""
    return {name: workflow.get_parameter(name) for name in ("workspace", "settings", "attempt")}


def placed(arguments: dict[str, Any], provisioned: Any) -> dict[str, Any]:
    """The same with the nodes' names from the step that asked for them."""
    return arguments | {"hostnames": provisioned.get_parameter("hostnames")}


def candidate(provisioned: Any) -> dict[str, Any]:
    """Which kind of node it became, as a further argument."""
    return {"candidate": provisioned.get_parameter("candidate")}


def build(
    kind: Kind, workspace: api.Workspace, settings: Settings, *, attempt: int, fill: Callable[[Workflow], None]
) -> dict[str, Any]:
    """The manifest of one attempt; `fill` adds the steps, in a context of its own.

    Hera keeps its open Workflow in a list that copied contexts share, so threads would write into each other's.
    """
    workflow = Workflow(
        name=names.workflow(workspace, attempt),
        namespace=settings.namespace,
        labels=_labels(kind, workspace, settings, attempt),
        annotations={
            names.INTENT: intent.of(runtimes.heeded(workspace, settings)).dump(),
            "workflows.argoproj.io/title": f"{kind} {workspace.key}",
            "workflows.argoproj.io/description": _description(kind, workspace, attempt),
        },
        arguments={
            "workspace": inert_json(json.dumps(workspace.intent())),
            "settings": inert_json(settings.dump()),
            "attempt": str(attempt),
            "operator-image": settings.image("operator"),
        },
        pod_metadata=argo.Metadata(labels={**names.labels(workspace), names.ROLE: "step"}, annotations={}),
        image_pull_secrets=[settings.pull_secret] if settings.pull_secret else [],
        **_SAME,
    )
    contextvars.Context().run(_fill, workflow, fill)
    return _with_volumes(workflow.to_dict(), settings)


def _fill(workflow: Workflow, fill: Callable[[Workflow], None]) -> None:
    with workflow:
        fill(workflow)


def inert_json(text: str) -> str:
    """JSON in which Argo finds nothing to substitute: `{{` stands only inside strings, where it may be written so."""
    return text.replace("{{", "{\\u007b")


def inert(texts: tuple[str, ...]) -> list[str]:
    """Texts for people, some of them the user's own, in which Argo finds nothing to substitute either."""
    return [re.sub(r"\{(?=\{)", "{ ", text)[:1000] for text in texts[:20]]


def _description(kind: Kind, workspace: api.Workspace, attempt: int) -> str:
    model = f"{workspace.preset.name}, " if workspace.preset and kind != "release" else ""
    return f"{model}generation {workspace.metadata.generation}, attempt {attempt}"


def _labels(kind: Kind, workspace: api.Workspace, settings: Settings, attempt: int) -> dict[str, str]:
    labels = {**names.labels(workspace), names.WORKFLOW: kind, names.ATTEMPT: str(attempt)}
    if settings.argo_instance_id:
        labels["workflows.argoproj.io/controller-instanceid"] = settings.argo_instance_id
    return labels


def _with_volumes(manifest: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """Add what the settings ask for to every step: certificate authorities, a cloud identity."""
    volumes: list[dict[str, Any]] = [{"name": "tmp", "emptyDir": {}}]
    mounts: list[dict[str, Any]] = []
    env: list[dict[str, str]] = []
    if settings.ca_bundle:
        volumes.append({"name": "ca", "configMap": {"name": settings.ca_bundle}})
        mounts.append({"name": "ca", "mountPath": _CA_FOLDER, "readOnly": True})
        env += [{"name": name, "value": f"{_CA_FOLDER}/ca.crt"} for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")]
    if settings.azure:
        # The same token that AKS's webhook would mount; by our own hand it needs no webhook.
        token = {"audience": "api://AzureADTokenExchange", "expirationSeconds": 3600, "path": "azure-identity-token"}
        volumes.append({"name": "azure", "projected": {"sources": [{"serviceAccountToken": token}]}})
        mounts.append({"name": "azure", "mountPath": _AZURE_FOLDER, "readOnly": True})
    manifest["spec"]["volumes"] = volumes
    for template in manifest["spec"]["templates"]:
        if "script" in template:
            template["script"]["volumeMounts"] += mounts
            template["script"]["env"] += env
    return manifest
