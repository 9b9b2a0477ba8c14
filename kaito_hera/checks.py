"""What can be known before a GPU is bought, as small functions that raise the first reason why this cannot work.

Those that need nothing but the Workspace come first, then those that read the cluster, then the dry runs, in which
quotas, Pod Security and admission policies speak.
"""

import contextlib
import dataclasses
import datetime
import functools
from collections.abc import Callable, Iterator
from typing import Any

import pydantic

from artifacts.weights.config import DataCommit, Found
from kaito_hera import cluster as clusters
from kaito_hera import (
    errors,
    findings,
    inherited,
    jobs,
    loads,
    models,
    ownpod,
    pods,
    rayservice,
    refusals,
    rollout,
    sizing,
    volumes,
)
from kaito_hera.api import Workspace
from kaito_hera.nodes import fitting
from kaito_hera.run import Run
from kaito_hera.settings import Settings
from kaito_hera.status import Refusal

_KUBERAY = (
    f"have the platform team install KubeRay {rayservice.LEAST} or newer (it is looked for again by itself), or take a"
    " size of which one node holds the model"
)


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What a Workspace will need of the cluster."""

    objects: tuple[tuple[clusters.Kind, dict[str, Any]], ...]
    """What will be made in the user's namespace: pods by what will make them."""
    demands: tuple[loads.Demand, ...]
    """What one GPU must hold, to tune and to serve, whichever is asked for."""
    pull_secrets: tuple[tuple[str, str], ...]
    """Docker Secrets: the Workspace's field and the name in it."""
    tokens: tuple[tuple[str, str, str], ...]
    """Secrets of which one key is needed: the Workspace's field, the name in it and the key."""
    checks: tuple[jobs.Task, ...]
    """Looks at data and registries from where the work will run, as far as there is anything to look at."""
    warnings: tuple[str, ...] = ()
    """What the user should know though it stops nothing."""


@dataclasses.dataclass(frozen=True)
class Learned:
    """What the looks of a preflight have found."""

    adapter: str = ""
    """By digest, if it is there already."""
    model: Found = Found()  # noqa: RUF009 - frozen
    """Empty where it was not asked for."""
    commits: tuple[str, ...] = ()
    """Of each address of data, in alphabetical order; none where no data set of the hub was looked at."""


def pass_facts(workspace: Workspace, settings: Settings) -> tuple[str, ...]:
    """What follows from the Workspace alone; answers with what should be known though it stops nothing."""
    today = datetime.datetime.now(datetime.UTC).date()
    model = models.find(workspace)
    usual = loads.demands(workspace, model, loads.Batch()) if model else ()
    found = [*refusals.findings(workspace, settings, today), *_of_sizes(workspace, settings, usual)]
    return _told(fitting.mild(workspace, found))


def pass_memory(
    workspace: Workspace, settings: Settings, demands: tuple[loads.Demand, ...]
) -> tuple[tuple[str, ...], tuple[Refusal, ...]]:
    """One GPU of some size holds what is to be done with the model; answers as `pass_facts`, and with the others."""
    memory = fitting.findings(workspace, settings, demands, settings.region)
    found = [*_of_sizes(workspace, settings, demands), *memory]
    findings.settle(fitting.mild(workspace, found))  # each size may fail for another reason
    return _told(fitting.mild(workspace, memory)), fitting.left_out(workspace, settings, found)


def _of_sizes(workspace: Workspace, settings: Settings, demands: tuple[loads.Demand, ...]) -> list[findings.Finding]:
    today = datetime.datetime.now(datetime.UTC).date()
    return sizing.size_findings(workspace, settings, today, demands, settings.region)


def pass_cluster(run: Run, wanted: Wanted) -> Learned:
    """What only the cluster, the data's host, registries and the hub can say."""
    _pass_tokens(run, wanted.tokens)
    for kind, obj in wanted.objects:
        dry_run(run.cluster, run.workspace, kind, obj)
    if not wanted.checks:
        return Learned()
    pods.ensure_copies(run.cluster, run.workspace, run.settings)
    rollout.ensure_registry_secret(run.cluster, run.workspace, wanted.pull_secrets)
    answers = [jobs.run(run, check) for check in wanted.checks]
    return _learned(run.workspace, answers)


def looks(
    run: Run, secrets: tuple[tuple[str, str], ...], mounted: tuple[volumes.Use, ...]
) -> Iterator[Callable[[], object]]:
    """At the docker Secrets and claims that the Workspace names, one by one: for `errors.gather`."""
    namespace = run.workspace.metadata.namespace
    for field, name in secrets:
        yield functools.partial(pods.secret, run.cluster, namespace, name, field=field)
    for use in mounted:
        yield functools.partial(volumes.pass_claim, run.cluster, run.workspace, use)


def _pass_tokens(run: Run, tokens: tuple[tuple[str, str, str], ...]) -> None:
    namespace = run.workspace.metadata.namespace
    errors.gather(
        functools.partial(pods.token, run.cluster, namespace, name, key=key, field=field) for field, name, key in tokens
    )


def _learned(workspace: Workspace, answers: list[dict[str, Any]]) -> Learned:
    """Text of pods in the user's namespace, read strictly."""
    models = [answer["model"] for answer in answers if answer.get("model")]
    commits = [answer["data"] for answer in answers if answer.get("data")]
    try:
        model = Found.model_validate(models[0] if models else {})
        data = _Commits.validate_python(commits[0] if commits else ())
    except pydantic.ValidationError as cause:
        raise errors.InternalError(
            f"{workspace.key}: the look at its model or data said what it never does ({cause.errors()[0]['msg']});"
            " operator and images must be of one release"
        ) from cause
    return Learned(str(answers[0].get("adapter", "")), model, data)


_Commits = pydantic.TypeAdapter(tuple[DataCommit, ...])


def _told(found: list[findings.Finding]) -> tuple[str, ...]:
    warnings = findings.settle(found)
    for text in warnings:
        print(f"warning: {text}", flush=True)
    return warnings


def _pass_whole(asked: dict[str, Any], made: dict[str, Any], *, own: bool) -> None:
    """Of a pod: none of its volumes is left out, as image volumes are, without a word, where a feature gate is off."""
    kept = [volume["name"] for volume in made.get("volumes", [])]
    for volume in asked.get("volumes") or []:
        if "image" in volume and volume["name"] not in kept:
            raise errors.InvalidWorkspaceError(
                f"{'inference.template.spec.volumes' if own else 'volumeSource'}: the image {volume['image']} cannot be"
                " mounted: this cluster has no image volumes (feature gate ImageVolume); take another kind of volume"
            )


@contextlib.contextmanager
def _explained(kind: clusters.Kind) -> Iterator[None]:
    """What the API server says of a RayService, with what to do where it has none, or an old one."""
    try:
        yield
    except clusters.UnknownKindError as cause:
        if kind != clusters.RAY_SERVICE:
            raise
        raise errors.KubeRayMissingError(
            f"resource.count: the model needs several nodes together, and this cluster has no RayService: {_KUBERAY}"
        ) from cause
    except clusters.InvalidObjectError as cause:
        if kind != clusters.RAY_SERVICE or "field" not in str(cause):
            raise
        raise errors.KubeRayMissingError(
            f"resource.count: this cluster's RayService does not know what the server needs: {cause}; {_KUBERAY}"
        ) from cause


def dry_run(cluster: clusters.Cluster, workspace: Workspace, kind: clusters.Kind, obj: dict[str, Any]) -> None:
    """The API server would take this object, and its pods if it has any; its name is not somebody else's.

    One of ours that is there was let in before. Asked again, a quota that it fills would speak against itself. Only
    what the user wrote himself is asked about again, as a change.
    """
    metadata = obj["metadata"]
    found = cluster.get(kind, metadata["name"], metadata["namespace"])
    pods.refuse_foreign(found, workspace, kind.name)
    if inherited.is_theirs(found, workspace):
        return  # of KAITO's: it gives way to ours
    template = obj.get("spec", {}).get("template")
    own = template is not None and workspace.preset is None
    template = rayservice.head(obj) if kind == clusters.RAY_SERVICE else template
    todo = [] if found else [(kind, obj)]
    if template and not found:
        meant = {key: template["metadata"][key] for key in ("labels", "annotations") if key in template["metadata"]}
        whole = {"name": metadata["name"], "namespace": metadata["namespace"], **meant}
        todo.append((clusters.POD, {"metadata": whole, "spec": template["spec"]}))
    for made, body in todo:
        with (
            contextlib.suppress(clusters.ConflictError),
            _explained(made),
            ownpod.in_users_words(made, own=own),
        ):
            # a conflict: the server had nothing against it but its name
            _pass_whole(body.get("spec", {}), cluster.create(made, body, dry_run=True).get("spec", {}), own=own)
    if own:  # it takes some things in a new object that it takes in no change
        with ownpod.in_users_words(kind, own=own):
            cluster.apply(kind, obj, dry_run=True)
