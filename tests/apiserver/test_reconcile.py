"""One reconcile at a time against a real API server: what a stale view may not do."""

import copy
import datetime
import json

import pytest

from kaito_hera import cluster as clusters
from kaito_hera import errors, jobs, names
from kaito_hera.api import FINALIZER, Workspace
from kaito_hera.live import Live
from kaito_hera.reconcile import Reconciler
from kaito_hera.run import Run, provider
from tests import making
from tests.apiserver.conftest import until
from tests.apiserver.kaito import CRD
from workflows.plan import plan

OPERATOR = "kaito-hera"


def live(**objects):
    return Live(now=datetime.datetime.now(datetime.UTC), **{kind: tuple(found) for kind, found in objects.items()})


def settled(cluster, reconciler, obj, seen):
    """Reconciled until it writes nothing more; the Workspace as it is stored then."""
    metadata = obj["metadata"]
    for _ in range(10):
        reconciler.reconcile(obj, seen)
        newest = cluster.get(clusters.WORKSPACE, metadata["name"], metadata["namespace"])
        if newest is None or newest["metadata"]["resourceVersion"] == obj["metadata"]["resourceVersion"]:
            return newest
        obj = newest
    pytest.fail(f"never comes to rest: {obj['status']}")


def test_a_view_from_before_the_attempt_does_not_stop_it(cluster, apply, settings):
    reconciler = Reconciler(cluster, settings, plan)
    before = apply(making.inference())
    while "workflow" not in before.get("status", {}):
        stale = before
        reconciler.reconcile(before, live())
        before = cluster.get(clusters.WORKSPACE, "w", before["metadata"]["namespace"])
    name = before["status"]["workflow"]["name"]
    begun = cluster.get(clusters.WORKFLOW, name, OPERATOR)
    with pytest.raises(clusters.ConflictError):
        reconciler.reconcile(stale, live(workflows=[begun]))
    assert "shutdown" not in cluster.get(clusters.WORKFLOW, name, OPERATOR)["spec"]


def test_a_workspace_of_another_version_s_crd_is_released_all_the_same(cluster, apply, settings):
    reconciler = Reconciler(cluster, settings, plan)
    stored = settled(cluster, reconciler, apply(making.inference()), live())
    namespace = stored["metadata"]["namespace"]
    cluster.delete(clusters.WORKSPACE, "w", namespace)
    leaving = cluster.get(clusters.WORKSPACE, "w", namespace)

    def unreadable():
        found = cluster.get(clusters.WORKSPACE, "w", namespace)
        return found and {**found, "inference": {"template": {}}}

    first = cluster.get(clusters.WORKFLOW, leaving["status"]["workflow"]["name"], OPERATOR)
    stopped = {**first, "spec": {"shutdown": "Terminate"}, "status": {"phase": "Failed"}}
    for _ in range(5):
        reconciler.reconcile(unreadable(), live(workflows=[stopped]))
    name = unreadable()["status"]["workflow"]["name"]
    release = cluster.get(clusters.WORKFLOW, name, OPERATOR)
    assert release["metadata"]["labels"][names.WORKFLOW] == "release"
    given = {p["name"]: p["value"] for p in release["spec"]["arguments"]["parameters"]}
    assert json.loads(given["workspace"])["metadata"]["uid"] == stored["metadata"]["uid"]
    done = {**release, "status": {"phase": "Succeeded"}}
    while unreadable():
        reconciler.reconcile(unreadable(), live(workflows=[done]))


@pytest.mark.parametrize("levels", [300, 2_000, 5_000])
def test_a_workspace_too_deep_for_any_reader_is_refused_by_itself(cluster, settings, kubectl, namespace, levels):
    pod = {"spec": {"containers": [{"name": "c", "image": "i"}], "x": "DEEP"}}
    obj = {
        "apiVersion": "kaito.sh/v1beta1",
        "kind": "Workspace",
        "metadata": {"name": "w", "namespace": namespace},
        "resource": {"labelSelector": {"matchLabels": {"a": "b"}}},
        "inference": {"template": pod},
    }
    deep = '{"a":' * levels + "1" + "}" * levels
    kubectl("create", "--validate=false", "-f", "-", stdin=json.dumps(obj).replace('"DEEP"', deep))
    (seen,) = cluster.items(clusters.WORKSPACE, namespace)
    stored = settled(cluster, Reconciler(cluster, settings, plan), seen, live())
    (ready,) = [each for each in stored["status"]["conditions"] if each["type"] == "Ready"]
    assert (ready["status"], ready["reason"]) == ("False", "InvalidWorkspace")
    assert "workflow" not in stored["status"]


def test_a_job_that_runs_gets_its_workspace_s_new_deadline(cluster, apply, settings, kubectl):
    reconciler = Reconciler(cluster, settings, plan)
    stored = settled(cluster, reconciler, apply(making.tuning()), live())
    namespace, attempt = stored["metadata"]["namespace"], stored["status"]["workflow"]["name"]
    workspace = Workspace.parse(stored)
    pod = {"metadata": {}, "spec": {"containers": [{"name": "tuning", "image": "i"}]}}
    task = jobs.Task(names.job(workspace, 1), "tuning", 1, pod, settings.tuning_timeout_seconds)
    job = cluster.create(clusters.JOB, jobs.manifest(workspace, task))
    edited = cluster.patch(clusters.WORKSPACE, "w", namespace, {"tuning": {"activeDeadlineSeconds": 604800}})
    running = {**cluster.get(clusters.WORKFLOW, attempt, OPERATOR), "status": {"phase": "Running"}}
    settled(cluster, reconciler, edited, live(workflows=[running], jobs=[job]))
    assert cluster.get(clusters.JOB, "w", namespace)["spec"]["activeDeadlineSeconds"] == 604800
    account = "--as=system:serviceaccount:kaito-hera:kaito-hera-operator"
    assert kubectl("-n", namespace, "auth", "can-i", "patch", "jobs", account).stdout.strip() == "yes"


def test_a_name_that_only_kaito_s_crd_took_is_told_and_can_be_deleted(cluster, namespace, settings):
    """Stored while our CRD's rules are away: they leave in peace what is there."""
    reconciler = Reconciler(cluster, settings, plan)
    crd = cluster.get(CRD, "workspaces.kaito.sh")
    lax = copy.deepcopy(crd)
    for version in lax["spec"]["versions"]:
        del version["schema"]["openAPIV3Schema"]["x-kubernetes-validations"]
    made = {**making.inference(), "metadata": {"name": "7b.x-chat", "namespace": namespace, "finalizers": [FINALIZER]}}
    try:
        cluster.patch(CRD, "workspaces.kaito.sh", None, {"spec": lax["spec"]})
        until(lambda: created(cluster, made), what="a Workspace of that name")
    finally:
        cluster.patch(CRD, "workspaces.kaito.sh", None, {"spec": crd["spec"]})
    stored = settled(cluster, reconciler, get(cluster, namespace), live())
    told = {c["type"]: c["message"] for c in stored["status"]["conditions"]}
    assert "metadata.name" in told["Stalled"]
    assert told["Ready"] == told["Stalled"]
    assert "workflow" not in stored["status"]
    cluster.delete(clusters.WORKSPACE, "7b.x-chat", namespace)
    for _ in range(5):
        reconciler.reconcile(get(cluster, namespace), live())
    release = cluster.get(clusters.WORKFLOW, get(cluster, namespace)["status"]["workflow"]["name"], OPERATOR)
    done = {**release, "status": {"phase": "Succeeded", "nodes": {}}}
    while found := get(cluster, namespace):
        reconciler.reconcile(found, live(workflows=[done]))


def get(cluster, namespace):
    return cluster.get(clusters.WORKSPACE, "7b.x-chat", namespace)


def created(cluster, obj):
    try:
        return cluster.create(clusters.WORKSPACE, obj)
    except errors.KaitoError:
        return None


@pytest.mark.parametrize(("image", "starts"), [("", False), ("a.io/serving-vllm:1", True)])
def test_an_annotation_that_had_no_effect_starts_nothing_at_an_upgrade(cluster, apply, settings, image, starts):
    """Stalled by a release that knew no vLLM: only where the annotation has an effect by now is it another word."""
    reconciler = Reconciler(cluster, settings.model_copy(update={"vllm_image": image}), plan)
    named = {"kaito.sh/runtime": "vllm"}
    obj = settled(cluster, Reconciler(cluster, settings, plan), apply(making.inference(annotations=named)), live())
    made = cluster.get(clusters.WORKFLOW, obj["status"]["workflow"]["name"], OPERATOR)
    message = making.failed_message("UnknownPreset", "no such preset", retryable=False)
    preflight = making.workflow(making.inference(), phase="Failed", preflight=("Failed", message))["status"]
    seen = live(workflows=[{**made, "status": preflight}])
    assert obj["status"]["workflow"]["annotated"] == ""
    after = settled(cluster, reconciler, obj, seen)
    assert (after["status"]["workflow"]["attempt"] > obj["status"]["workflow"]["attempt"]) == starts


def test_a_step_goes_on_when_what_has_no_effect_is_annotated(cluster, apply, settings):
    asked = Workspace.parse(apply(making.inference()))
    metadata = {"annotations": {"kaito.sh/runtime": "vllm"}}
    cluster.patch(clusters.WORKSPACE, "w", asked.metadata.namespace, {"metadata": metadata})
    Run(cluster, asked, settings, provider(cluster, settings)).still_wanted()
    able = settings.model_copy(update={"vllm_image": "a.io/serving-vllm:1"})
    with pytest.raises(errors.SupersededError, match="was changed"):
        Run(cluster, asked, able, provider(cluster, able)).still_wanted()
