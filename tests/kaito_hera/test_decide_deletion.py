import json

import pytest

from kaito_hera import api
from kaito_hera.decide import (
    Create,
    DeleteJob,
    DeleteWorkflow,
    LookAgain,
    ReleaseWithoutArgo,
    RemoveFinalizer,
    Start,
    Stop,
)
from kaito_hera.intent import Parts
from kaito_hera.reconcile import release_job
from kaito_hera.settings import Settings
from kaito_hera.status import NodesStatus, Status
from tests import making
from tests.kaito_hera.deciding import AKS, decided, status
from workflows.plan import plan


def deleted(workspace, seconds=1):
    metadata = {**workspace["metadata"], "deletionTimestamp": making.ago(seconds)}
    return {**workspace, "metadata": metadata}


def test_a_workspace_that_never_did_anything_goes_at_once():
    written = Status(observed_generation=1)
    assert decided(deleted(making.inference()), written, making.live()) == [RemoveFinalizer()]


@pytest.mark.parametrize("settings", [AKS, Settings(node_provider="byo")], ids=["aks", "byo"])
def test_what_kaito_made_is_released_though_we_never_did_anything(settings):
    workspace = deleted(making.inference())
    theirs = Status.of({"status": {"workerNodes": ["n1"]}})
    assert decided(workspace, theirs, making.live(), settings) == [Start(Parts(), failures=0)]
    done = making.workflow(workspace, kind="release", phase="Succeeded", release="Succeeded")
    after = status(workspace, kind="release", nodes=NodesStatus(inherited=True))
    assert RemoveFinalizer() in decided(workspace, after, making.live(workflows=[done]), settings)


def test_without_our_finalizer_a_deletion_is_not_ours():
    assert decided(deleted(making.inference(finalizers=["other"])), Status(), making.live()) == []


def test_a_deletion_stops_the_attempt_and_its_job_and_waits_for_the_pods():
    workspace = deleted(making.tuning())
    running = making.workflow(workspace, kind="tune", train="Running")
    name = running["metadata"]["name"]
    pods = [making.pod(workspace, "step", workflow=name)]
    seen = making.live(workflows=[running], jobs=[making.job(workspace)], pods=pods)
    assert decided(workspace, status(workspace, kind="tune"), seen) == [
        Stop(name),
        DeleteJob("team", "w"),
        LookAgain(5.0),
    ]


def test_then_a_release_is_started():
    workspace = deleted(making.tuning())
    stopped = making.workflow(workspace, kind="tune", phase="Failed", shutdown="Terminate")
    seen = making.live(workflows=[stopped])
    assert decided(workspace, status(workspace, kind="tune"), seen) == [
        DeleteWorkflow(stopped["metadata"]["name"]),
        Start(Parts(), failures=0),
    ]


def test_pods_of_a_dead_node_do_not_hold_a_release_up():
    workspace = deleted(making.tuning(), seconds=61)
    stopped = making.workflow(workspace, kind="tune", phase="Running", shutdown="Terminate")
    name = stopped["metadata"]["name"]
    seen = making.live(workflows=[stopped], pods=[making.pod(workspace, "step", workflow=name)])
    assert Start(Parts(), failures=0) in decided(workspace, status(workspace, kind="tune"), seen)


def test_after_the_release_everything_goes():
    workspace = deleted(making.inference())
    released = making.workflow(workspace, 2, kind="release", phase="Succeeded", release="Succeeded")
    before = status(workspace, attempt=2, kind="release")
    assert decided(workspace, before, making.live(workflows=[released])) == [
        DeleteWorkflow(released["metadata"]["name"]),
        RemoveFinalizer(),
    ]


def test_a_failed_release_is_tried_again():
    workspace = deleted(making.inference())
    message = making.failed_message("ProvisioningFailed", "403", retryable=True)
    failed = making.workflow(workspace, 2, kind="release", phase="Failed", release=("Failed", message))
    before = status(workspace, attempt=2, kind="release")
    assert decided(workspace, before, making.live(workflows=[failed])) == [LookAgain(9)]


def test_a_release_that_argo_does_not_take_up_is_done_without_argo():
    workspace = deleted(making.inference())
    before = status(workspace, attempt=2, kind="release", phase="")
    waiting = making.workflow(workspace, 2, kind="release", phase="", age=121)
    assert decided(workspace, before, making.live(workflows=[waiting])) == [ReleaseWithoutArgo()]


def test_a_release_that_argo_took_up_and_then_dropped_is_done_without_argo_too():
    workspace = deleted(making.inference())
    before = status(workspace, attempt=2, kind="release")
    waiting = making.workflow(workspace, 2, kind="release", phase="Running", age=121)
    assert decided(workspace, before, making.live(workflows=[waiting])) == [ReleaseWithoutArgo()]
    working = [making.pod(workspace, "step", workflow=waiting["metadata"]["name"])]
    assert decided(workspace, before, making.live(workflows=[waiting], pods=working)) == []


def test_a_release_that_argo_cannot_even_be_asked_for_is_done_without_argo():
    before = status(making.inference(), attempt=2, kind="release", phase="")
    assert decided(deleted(making.inference(), seconds=10), before, making.live()) == [LookAgain(111), Create(Parts())]
    assert decided(deleted(making.inference(), seconds=121), before, making.live()) == [
        ReleaseWithoutArgo(),
        Create(Parts()),
    ]


def test_the_release_job_s_success_is_enough():
    workspace = deleted(making.inference())
    before = status(workspace, attempt=2, kind="release", phase="")
    waiting = making.workflow(workspace, 2, kind="release", phase="", age=200)
    job = making.job(workspace, 0, role="release", namespace="kaito-hera", succeeded=1)
    assert decided(workspace, before, making.live(workflows=[waiting], jobs=[job])) == [
        DeleteWorkflow(waiting["metadata"]["name"]),
        DeleteJob("kaito-hera", "w-release"),
        RemoveFinalizer(),
    ]


def test_brought_nodes_need_no_release():
    workspace = deleted(making.inference())
    seen = making.live(workflows=[making.workflow(workspace, phase="Succeeded")])
    actions = decided(workspace, status(workspace), seen, Settings(node_provider="byo"))
    assert actions == [DeleteWorkflow(seen.workflows[0]["metadata"]["name"]), RemoveFinalizer()]


def test_nodes_that_aks_made_are_given_back_though_the_settings_name_brought_ones_by_now():
    workspace = deleted(making.inference())
    before = status(workspace, "nodes", nodes=NodesStatus(held=True))
    seen = making.live(workflows=[making.workflow(workspace, phase="Succeeded")], nodes=[making.node(workspace)])
    actions = decided(workspace, before, seen, Settings(node_provider="byo"))
    assert Start(Parts(), failures=0) in actions
    assert RemoveFinalizer() not in actions


def test_a_release_job_that_gave_up_is_made_anew():
    workspace = deleted(making.inference())
    before = status(workspace, attempt=2, kind="release", phase="")
    waiting = making.workflow(workspace, 2, kind="release", phase="", age=200)
    job = making.job(workspace, 0, role="release", namespace="kaito-hera", failed=1)
    actions = decided(workspace, before, making.live(workflows=[waiting], jobs=[job]))
    assert actions == [DeleteJob("kaito-hera", "w-release"), LookAgain(5)]


def test_an_unreadable_status_with_workflows_about_still_releases():
    workspace = deleted(making.inference())
    seen = making.live(workflows=[making.workflow(workspace, phase="Succeeded")])
    assert Start(Parts(), failures=0) in decided(workspace, Status(), seen)


def test_the_finalizer_is_kaitos_own_name():
    assert api.FINALIZER == "workspace.finalizer.kaito.sh"


def test_a_status_that_was_lost_does_not_lose_the_nodes():
    workspace = deleted(making.inference())
    assert Start(Parts(), failures=0) in decided(workspace, Status(), making.live(nodes=[making.node(workspace)]))
    held = Status(nodes=NodesStatus(held=True))
    assert Start(Parts(), failures=0) in decided(workspace, held, making.live())


def test_old_pods_and_dying_ones_do_not_keep_a_release_from_being_done_without_argo():
    workspace = deleted(making.inference())
    before = status(workspace, attempt=2, kind="release")
    waiting = making.workflow(workspace, 2, kind="release", phase="Running", age=121)
    old = making.pod(workspace, "step", workflow="an-earlier-one")
    dying = making.pod(workspace, "step", workflow=waiting["metadata"]["name"])
    dying["metadata"]["deletionTimestamp"] = making.ago(100)
    seen = making.live(workflows=[waiting], pods=[old, dying])
    assert decided(workspace, before, seen) == [ReleaseWithoutArgo()]


@pytest.mark.parametrize("name", ["7b.x-Chat", "7b-chat"])
def test_a_workspace_whose_name_only_kaito_allowed_is_released_and_goes(name):
    workspace = deleted(making.inference(name=name))
    theirs = Status.of({"status": {"workerNodes": ["n1"]}})
    assert decided(workspace, theirs, making.live()) == [Start(Parts(), failures=0)]
    manifest = plan(making.parsed(workspace), AKS, attempt=1, parts=None)
    job = release_job(making.parsed(workspace), AKS, manifest)
    [container] = job["spec"]["template"]["spec"]["containers"]
    said = next(each["value"] for each in container["env"] if each["name"] == "WORKSPACE")
    assert api.Workspace.parse(json.loads(said)).metadata.name == name
    done = making.workflow(workspace, kind="release", phase="Succeeded", release="Succeeded")
    after = status(workspace, kind="release", nodes=NodesStatus(inherited=True))
    assert RemoveFinalizer() in decided(workspace, after, making.live(workflows=[done]))
