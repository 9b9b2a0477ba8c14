import pytest

from kaito_hera.decide import (
    AddFinalizer,
    Create,
    DeleteJob,
    DeleteWorkflow,
    LookAgain,
    Start,
    Stop,
    decide,
    missing,
    next_attempt,
)
from kaito_hera.intent import Parts
from kaito_hera.observe import observe
from kaito_hera.status import NodesStatus, Status
from tests import making
from tests.kaito_hera.deciding import AKS, decided, status

ALL_TO_SERVE = Parts(nodes=True, serve=True)


def test_the_finalizer_comes_before_anything_that_costs():
    workspace = making.inference(finalizers=[])
    assert decided(workspace, Status(), making.live()) == [AddFinalizer()]


def test_a_new_workspace_gets_its_first_attempt():
    assert decided(making.inference(), Status(), making.live()) == [Start(ALL_TO_SERVE, failures=0)]


def test_an_attempt_that_was_recorded_but_not_created_is_created_under_that_name():
    workspace = making.inference()
    assert decided(workspace, status(workspace, phase=""), making.live()) == [Create(ALL_TO_SERVE)]


def test_a_running_attempt_is_left_alone():
    workspace = making.inference()
    seen = making.live(workflows=[making.workflow(workspace, preflight="Running")])
    assert decided(workspace, status(workspace), seen) == []


def test_a_workflow_that_argo_does_not_take_up_is_looked_at_again_in_time():
    workspace = making.inference()
    seen = making.live(workflows=[making.workflow(workspace, phase="", age=100)])
    assert decided(workspace, status(workspace, phase=""), seen) == [LookAgain(21)]


def test_nothing_is_done_when_all_is_reached():
    workspace = making.inference()
    seen = making.live(
        workflows=[making.workflow(workspace, phase="Succeeded")],
        nodes=[making.node(workspace)],
        deployments=[making.deployment(workspace)],
    )
    assert decided(workspace, status(workspace, "nodes", "serve", phase="Succeeded"), seen) == []


def test_an_edit_stops_the_running_attempt_first():
    before = making.inference()
    after = making.edited(before, instanceType="Standard_NC48ads_A100_v4")
    running = making.workflow(before, preflight="Running")
    pods = [making.pod(before, "step", workflow=running["metadata"]["name"])]
    actions = decided(after, status(before), making.live(workflows=[running], pods=pods))
    assert actions == [Stop(running["metadata"]["name"]), LookAgain(5.0)]


def test_after_the_stop_the_next_attempt_waits_for_the_old_pods_to_be_gone():
    before = making.inference()
    after = making.edited(before, instanceType="Standard_NC48ads_A100_v4")
    stopped = making.workflow(before, phase="Failed", shutdown="Terminate")
    pods = [making.pod(before, "step", workflow=stopped["metadata"]["name"])]
    assert decided(after, status(before), making.live(workflows=[stopped], pods=pods)) == [LookAgain(5.0)]
    assert decided(after, status(before), making.live(workflows=[stopped])) == [Start(ALL_TO_SERVE, failures=0)]


def test_a_stopped_workflow_counts_as_over_while_argo_is_down():
    before = making.inference()
    after = making.edited(before, instanceType="Standard_NC48ads_A100_v4")
    stopped = making.workflow(before, phase="Running", shutdown="Terminate")
    assert decided(after, status(before), making.live(workflows=[stopped])) == [Start(ALL_TO_SERVE, failures=0)]


def test_an_edit_that_changes_no_intent_disturbs_nothing():
    before = making.tuning()
    output = {**before["tuning"]["output"], "imagePushSecret": "other"}
    after = making.edited(before, tuning={**before["tuning"], "output": output})
    running = making.workflow(before, kind="tune", train="Running")
    seen = making.live(workflows=[running], jobs=[making.job(before)])
    assert decided(after, status(before, kind="tune"), seen) == []


def test_a_transient_failure_is_followed_by_another_attempt_after_a_pause():
    workspace = making.inference()
    message = making.failed_message("ProvisioningFailed", "no quota", retryable=True)
    failed = making.workflow(workspace, phase="Failed", provision_nodes=("Failed", message))
    actions = decided(workspace, status(workspace), making.live(workflows=[failed]))
    assert actions == [LookAgain(9)]  # it ended one second ago, ten are waited
    failed["status"]["finishedAt"] = making.ago(11)
    assert decided(workspace, status(workspace), making.live(workflows=[failed])) == [Start(ALL_TO_SERVE, failures=1)]


def test_the_pause_doubles_with_each_failure():
    workspace = making.inference()
    message = making.failed_message("ProvisioningFailed", "no quota", retryable=True)
    failed = making.workflow(workspace, phase="Failed", provision_nodes=("Failed", message))
    before = status(workspace, failures=3, phase="Running")
    assert decided(workspace, before, making.live(workflows=[failed])) == [LookAgain(79)]


def test_unexplained_failures_are_tried_three_times():
    workspace = making.inference()
    failed = making.workflow(workspace, phase="Error", age=1000)
    failed["status"]["finishedAt"] = making.ago(900)
    seen = making.live(workflows=[failed])
    assert decided(workspace, status(workspace, failures=1), seen) == [Start(ALL_TO_SERVE, failures=2)]
    assert decided(workspace, status(workspace, failures=2), seen) == []


def test_a_workflow_that_a_user_deleted_is_made_again_under_a_new_name():
    workspace = making.inference()
    before = status(workspace, attempt=3, phase="Running")
    assert decided(workspace, before, making.live()) == [Start(ALL_TO_SERVE, failures=0)]
    assert next_attempt(before, making.live()) == 4


def test_an_attempt_number_is_above_everything_that_is_there():
    workspace = making.tuning()
    seen = making.live(workflows=[making.workflow(workspace, 5)], jobs=[making.job(workspace, 7)])
    assert next_attempt(status(workspace, attempt=2), seen) == 8


def test_older_workflows_are_deleted_once_a_newer_one_is_recorded():
    workspace = making.inference()
    old = making.workflow(workspace, 1, phase="Failed")
    seen = making.live(workflows=[old, making.workflow(workspace, 2)])
    assert decided(workspace, status(workspace, attempt=2), seen) == [DeleteWorkflow(old["metadata"]["name"])]


def test_a_job_of_an_earlier_attempt_goes_before_the_next_begins():
    workspace = making.tuning()
    message = making.failed_message("Network", "gone", retryable=True)
    failed = making.workflow(workspace, kind="tune", phase="Failed", train=("Failed", message), age=100)
    failed["status"]["finishedAt"] = making.ago(60)
    seen = making.live(workflows=[failed], jobs=[making.job(workspace)], nodes=[making.node(workspace)])
    before = status(workspace, "nodes", kind="tune")
    assert decided(workspace, before, seen) == [DeleteJob("team", "w"), LookAgain(5.0)]


def test_the_job_that_ended_last_stays_for_its_log():
    workspace = making.tuning()
    seen = making.live(
        workflows=[making.workflow(workspace, kind="tune", phase="Succeeded")],
        jobs=[making.job(workspace, succeeded=1)],
        nodes=[making.node(workspace)],
        deployments=[making.deployment(workspace)],
    )
    before = status(workspace, "nodes", "tune", "serve", kind="tune", phase="Succeeded")
    assert decided(workspace, before, seen) == []


def test_a_follower_that_died_for_good_leaves_the_job_to_be_replaced():
    workspace = making.tuning()
    failed = making.workflow(workspace, kind="tune", phase="Error", train=("Error", "pod deleted"))
    before = status(workspace, "nodes", kind="tune")
    seen = making.live(workflows=[failed], jobs=[making.job(workspace)], nodes=[making.node(workspace)])
    assert DeleteJob("team", "w") in decided(workspace, before, seen)


@pytest.mark.parametrize(
    ("parts", "objects", "expected"),
    [
        pytest.param([], {}, ALL_TO_SERVE, id="nothing-yet"),
        pytest.param(["nodes"], {"nodes": 1}, Parts(serve=True), id="nodes-are-there"),
        pytest.param(["nodes", "serve"], {"nodes": 1, "deployments": 1}, Parts(), id="all-there"),
        pytest.param(["nodes", "serve"], {"deployments": 1}, ALL_TO_SERVE, id="node-lost"),
        pytest.param(["nodes", "serve"], {"nodes": 1}, Parts(serve=True), id="deployment-deleted"),
    ],
)
def test_an_attempt_has_only_what_is_missing(parts, objects, expected):
    workspace = making.inference()
    seen = making.live(
        nodes=[making.node(workspace)] * objects.get("nodes", 0),
        deployments=[making.deployment(workspace)] * objects.get("deployments", 0),
    )
    assert missing(making.parsed(workspace), status(workspace, *parts), seen) == expected


def test_an_adapter_edit_is_a_roll_out_alone():
    before = making.inference()
    adapters = [{"source": {"name": "a", "image": "team.azurecr.io/a:1"}, "strength": "0.5"}]
    after = making.edited(before, inference={**before["inference"], "adapters": adapters})
    seen = making.live(
        workflows=[making.workflow(before, phase="Succeeded")],
        nodes=[making.node(before)],
        deployments=[making.deployment(before)],
    )
    done = status(before, "nodes", "serve", phase="Succeeded")
    assert decided(after, done, seen) == [Start(Parts(serve=True), failures=0)]


def test_tuning_without_serving_wants_nothing_once_the_adapter_is_pushed():
    workspace = making.tuning_only()
    seen = making.live(workflows=[making.workflow(workspace, kind="tune", phase="Succeeded", release="Succeeded")])
    assert decided(workspace, status(workspace, "tune", kind="tune", phase="Succeeded"), seen) == []


def test_a_lost_node_is_bought_again_only_when_it_stays_away():
    workspace = making.inference()
    up = making.live(
        workflows=[making.workflow(workspace, phase="Succeeded")],
        nodes=[making.node(workspace)],
        deployments=[making.deployment(workspace)],
    )
    down = making.live(workflows=up.workflows, deployments=up.deployments)
    w = making.parsed(workspace)
    ready = observe(w, status(workspace, "nodes", "serve", phase="Succeeded"), up, AKS)
    lost = observe(w, ready, down, AKS)
    assert decide(w, lost, down, AKS) == [LookAgain(60.0)]
    since = lost.model_copy(
        update={
            "conditions": tuple(c.model_copy(update={"last_transition_time": making.ago(61)}) for c in lost.conditions)
        }
    )
    assert decide(w, since, down, AKS) == [Start(ALL_TO_SERVE, failures=0)]


def test_an_attempt_that_nothing_needs_any_more_is_not_made():
    workspace = making.inference()
    up = making.live(nodes=[making.node(workspace)], deployments=[making.deployment(workspace)])
    before = status(workspace, "nodes", "serve", phase="")
    assert decided(workspace, before, up) == [], "a Workflow without parts would release what serves"
    message = making.failed_message("ProvisioningFailed", "no quota", retryable=True)
    failed = making.workflow(workspace, phase="Failed", provision_nodes=("Failed", message), age=100)
    failed["status"]["finishedAt"] = making.ago(90)
    again = making.live(workflows=[failed], nodes=up.nodes, deployments=up.deployments)
    assert decided(workspace, status(workspace, "nodes", "serve"), again) == []


def test_serving_that_is_switched_off_gives_everything_back_once():
    workspace = making.tuning_only()
    tuned = making.workflow(workspace, kind="tune", phase="Succeeded")
    seen = making.live(workflows=[tuned], nodes=[making.node(workspace)], deployments=[making.deployment(workspace)])
    before = status(workspace, "nodes", "tune", kind="tune", phase="Succeeded", nodes=NodesStatus(held=True))
    assert decided(workspace, before, seen) == [Start(Parts(), failures=0)]
    only_a_server = making.live(workflows=[tuned], deployments=[making.deployment(workspace)])
    assert decided(workspace, status(workspace, "tune", kind="tune", phase="Succeeded"), only_a_server) == [
        Start(Parts(), failures=0)
    ]
    released = making.workflow(workspace, 2, kind="release", phase="Succeeded", release="Succeeded")
    leaving = making.live(workflows=[released], deployments=[making.deployment(workspace)])
    after = status(workspace, "tune", attempt=2, kind="release", phase="Succeeded", nodes=NodesStatus(held=True))
    assert decided(workspace, after, leaving) == []


def test_an_edit_back_to_what_was_tuned_first_tunes_again():
    first = making.tuning()
    second = making.edited(first, tuning={**first["tuning"], "method": "lora"})
    done = status(first, "nodes", "tune", "serve", kind="tune", phase="Succeeded")
    nodes = making.live(nodes=[making.node(first)], deployments=[making.deployment(first)])
    between = observe(making.parsed(second), done, nodes, AKS)
    assert between.tuning.adapter_image == ""
    back = making.edited(first, generation=3)
    assert missing(making.parsed(back), observe(making.parsed(back), between, nodes, AKS), nodes).tune


def test_the_job_of_an_attempt_stays_though_its_workflow_was_not_seen_yet():
    workspace = making.tuning()
    seen = making.live(jobs=[making.job(workspace)], nodes=[making.node(workspace)])
    before = status(workspace, "nodes", kind="tune", phase="")
    assert DeleteJob("team", "w") not in decided(workspace, before, seen)


@pytest.mark.parametrize("label", ["first", "-1", "9" * 20, "\u0663"])
def test_a_label_that_says_nothing_does_no_harm(label):
    workspace, job = making.tuning(), making.job(making.tuning())
    job["metadata"]["labels"]["kaito.sh/attempt"] = label
    assert next_attempt(status(workspace), making.live(jobs=[job])) == 2
    seen = making.live(workflows=[making.workflow(workspace, kind="tune", train="Running")], jobs=[job])
    assert decided(workspace, status(workspace, kind="tune"), seen) == [DeleteJob("team", "w")]
