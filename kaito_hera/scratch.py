"""A volume for what is trained, until its registry has it: then no GPU node has to wait for a registry.

Where the platform team names a StorageClass (setting `tuningScratch`), a tuning whose output is an image keeps
checkpoints and the finished adapter on a claim of that class, one for each intent. It outlives pods, nodes and
attempts; it goes when the adapter is pushed, when another intent has its own, or with the Workspace. A Job without GPUs
pushes from there.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from kaito_hera import cluster as clusters
from kaito_hera import errors, intent, jobs, names, pods, volumes
from kaito_hera.api import Workspace
from kaito_hera.api.sources import ClaimSource, Volume
from kaito_hera.run import Run
from kaito_hera.settings import Settings

FIELD = "setting tuningScratch"
ROLE = "scratch"
HURRY_SECONDS = 300
"""How long a registry may take while GPU nodes wait for it, to serve with what it gets."""
START_SECONDS = 120
"""What a pod may take to start beside that."""
_FULL = "exceeded quota"
"""How the API server says that a namespace's quota has no room, which other objects that end make again."""
_OF_A_NODE = frozenset({"kubernetes.io/no-provisioner", "rancher.io/local-path", "openebs.io/local", "topolvm.io"})
"""Makers of volumes that go with their node."""


def volume(workspace: Workspace) -> Volume:
    """The claim of what is asked for now, as pods mount it."""
    return Volume(persistent_volume_claim=ClaimSource(claim_name=name(workspace)))


def name(workspace: Workspace) -> str:
    """The claim's name."""
    return names.scratch(workspace, intent.trained(workspace))


def claim(workspace: Workspace, settings: Settings, gib: int) -> dict[str, Any]:
    """The claim, of so many GiB."""
    made_for = {"annotations": {names.INTENT: intent.of(workspace).tune}}
    return {
        "metadata": pods.metadata(workspace, name(workspace), role=ROLE) | made_for,
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": settings.tuning_scratch,
            "resources": {"requests": {"storage": f"{gib}Gi"}},
        },
    }


def look(run: Run) -> None:
    """Raise unless the StorageClass, where one is set, is there, its volumes outlive nodes, and no claim is going."""
    if intent.scratch(run.workspace, run.settings):
        _pass_class(run, run.settings.tuning_scratch)
        _pass_usable(run)


def _pass_class(run: Run, asked: str) -> None:
    try:
        found = run.cluster.get(clusters.STORAGE_CLASS, asked)
    except errors.ForbiddenError:  # by an older role: then the claim's pod will tell
        return
    if found is None:
        raise errors.ClaimInvalidError(
            f"{FIELD}: StorageClass {asked} is missing; name one of `kubectl get storageclass`, or take the setting out"
        )
    if run.provider.makes_nodes and found.get("provisioner") in _OF_A_NODE:
        raise errors.ClaimInvalidError(
            f"{FIELD}: volumes of StorageClass {asked} ({found['provisioner']}) go with their node, and nodes are given"
            " back before the adapter is pushed; name a class whose volumes can be attached to other nodes"
        )


def ensure(run: Run, gib: int) -> None:
    """Have the claim there, large enough, and none of an earlier intent of the Workspace's."""
    clear(run, keep=name(run.workspace))
    if not _pass_usable(run, gib):
        with contextlib.suppress(clusters.ConflictError):
            run.cluster.create(clusters.CLAIM, claim(run.workspace, run.settings, gib))


def clear(run: Run, *, keep: str = "") -> None:
    """Take the Workspace's claims away, all but one: those of other intents, or all where none is used any more."""
    namespace = run.workspace.metadata.namespace
    ours = clusters.selector({names.UID: run.workspace.metadata.uid, names.ROLE: ROLE})
    for other in run.cluster.items(clusters.CLAIM, namespace, labels=ours):
        if other["metadata"]["name"] != keep:
            run.cluster.delete(clusters.CLAIM, other["metadata"]["name"], namespace)


@contextlib.contextmanager
def in_own_words(run: Run) -> Iterator[None]:
    """The image knows one field for volumes; here the user has named none."""
    try:
        yield
    except (errors.ReportedTerminalError, errors.ReportedTransientError) as cause:
        text = str(cause).replace(volumes.OUTPUT, f"{FIELD}, {_named(run)}")
        raise errors.reported(cause.reason, text, retryable=cause.retryable) from cause


def push(run: Run, task: jobs.Task, *, read: Callable[[str], jobs.Progress | None], hurried: bool) -> str:
    """Have the Job push the adapter from the claim, which goes then; returns the adapter by digest.

    Whoever asks again hears it from the same Job. That one's pod, though it has ended, and that of the training keep
    the claim from going before status has the digest and reconcile deletes both.

    Hurried, an adapter that its registry does not take is left where it is, for another attempt: empty.
    """
    made = jobs.exists(run, task)
    if not made:
        _pass_claim(run)
    try:
        if not made:
            _pass_secrets(run)
        adapter = str(jobs.run(run, task, read=read)["adapter"])
    except errors.KaitoError as cause:
        if hurried:
            print(f"the nodes do not wait for this: {cause}", flush=True)
            return ""
        raise _later(run, cause) from cause
    run.cluster.delete(clusters.CLAIM, name(run.workspace), run.workspace.metadata.namespace)
    return adapter


def _later(run: Run, cause: errors.KaitoError) -> errors.KaitoError:
    """What a push that failed says: the adapter is finished, and waits for what may mend itself."""
    if isinstance(cause, errors.ForbiddenError) and _FULL in str(cause):
        return errors.reported(cause.reason, f"{cause}; the adapter waits on the {_named(run)}", retryable=True)
    if cause.reason == "DataInvalid":
        again = f"{cause}; delete the {_named(run)} to have the adapter trained anew"
        return errors.reported(cause.reason, again, retryable=False)
    if cause.reason.startswith("Push"):
        place = f"{cause}; or name another place in tuning.output.image: what is trained already is pushed there"
        return errors.reported(cause.reason, place, retryable=cause.retryable)
    return cause


def serves_meanwhile(run: Run) -> bool:
    """Whether a server of the Workspace's stands, so that its nodes are not held for the adapter alone."""
    metadata = run.workspace.metadata
    found = run.cluster.get(clusters.DEPLOYMENT, metadata.name, metadata.namespace)
    return found is not None and found["metadata"].get("labels", {}).get(names.UID) == metadata.uid


def drop(run: Run) -> None:
    """Take the claim away, and first the Jobs whose pods keep it, ended or not."""
    cluster, metadata = run.cluster, run.workspace.metadata
    for pod in cluster.items(clusters.POD, metadata.namespace, labels=f"{names.UID}={metadata.uid}"):
        job = pod["metadata"]["labels"].get("batch.kubernetes.io/job-name", "")
        if job and name(run.workspace) in _mounted(pod):
            cluster.delete(clusters.JOB, job, metadata.namespace)
    cluster.delete(clusters.CLAIM, name(run.workspace), metadata.namespace)


def _found(run: Run) -> dict[str, Any] | None:
    found = run.cluster.get(clusters.CLAIM, name(run.workspace), run.workspace.metadata.namespace)
    pods.refuse_foreign(found, run.workspace, "PersistentVolumeClaim")
    return found


def _pass_usable(run: Run, gib: int = 0) -> bool:
    """Whether the claim is there; raises ClaimNotFoundError while one is there that is of no use.

    One that is too small by now holds no finished adapter, or nothing would be trained.
    """
    found = _found(run)
    if found and (lost := _lost(found) or _small(found, gib) or _stale(found, run.workspace)):
        drop(run)  # pods that have ended would keep it for ever
        raise errors.ClaimNotFoundError(f"{FIELD}: {_named(run)} {lost}; it is made anew once it is gone")
    return found is not None


def _lost(found: dict[str, Any] | None) -> str:
    """Why no pod can use the claim any more; empty where one can."""
    if found is None:
        return "is missing"
    if found["metadata"].get("deletionTimestamp"):
        return "is being deleted"
    return "has lost its volume" if found.get("status", {}).get("phase") == "Lost" else ""


def _small(found: dict[str, Any], gib: int) -> str:
    """Why a claim that can be used does not suffice; empty where it does. One in another unit is somebody's own."""
    asked = str(found["spec"]["resources"]["requests"]["storage"])
    number = asked.removesuffix("Gi")
    return f"asks for {asked}, and {gib}Gi are needed by now" if number.isdecimal() and int(number) < gib else ""


def _stale(found: dict[str, Any], workspace: Workspace) -> str:
    """Why what lies on a claim is of no use to a training; empty where it may be: checkpoints know their intent."""
    other = _made_for(found) not in {"", intent.of(workspace).tune}
    return "has checkpoints for another tuning.output.image, none of them finished" if other else ""


def made_for(run: Run) -> str:
    """The tuning intent that the claim was made for, which an edit of the image's place leaves as it is; or empty."""
    found = _found(run)
    return _made_for(found) if found else ""


def _made_for(found: dict[str, Any]) -> str:
    return str(found["metadata"].get("annotations", {}).get(names.INTENT, ""))


def _pass_claim(run: Run) -> None:
    if lost := _lost(_found(run)):
        drop(run)
        raise errors.AdapterGoneError(f"{_named(run)}, with the finished adapter, {lost}: it is trained anew")


def _pass_secrets(run: Run) -> None:
    """What the Job's pod needs may have been changed since the preflight of the attempt that trained."""
    workspace = run.workspace
    assert workspace.tuning is not None
    secret = workspace.tuning.output.image_push_secret or ""
    pods.secret(run.cluster, workspace.metadata.namespace, secret, field="tuning.output.imagePushSecret")
    pods.ensure_copies(run.cluster, workspace, run.settings)


def _mounted(pod: dict[str, Any]) -> set[str]:
    mounted = pod["spec"].get("volumes", [])
    return {each.get("persistentVolumeClaim", {}).get("claimName", "") for each in mounted}


def _named(run: Run) -> str:
    return f"claim {run.workspace.metadata.namespace}/{name(run.workspace)}"
