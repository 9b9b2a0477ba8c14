import pytest

from kaito_hera.settings import Settings
from kaito_hera.status import Condition, Status, WorkflowStatus
from tests import making
from tests.kaito_hera.observing import observed, reached, recorded, said


def test_a_new_workspace_waits_for_its_first_step():
    status = observed(making.inference(), Status())
    assert said(status) == {
        "PreflightSucceeded": ("False", "PreflightPending"),
        "NodeClaimReady": ("False", "NodeClaimNotReady"),
        "ResourceReady": ("False", "workspaceResourceStatusNotReady"),
        "InferenceReady": ("False", "WorkspaceInferenceStatusPending"),
        "WorkspaceSucceeded": ("False", "workspacePending"),
        "WorkspaceReady": ("False", "workspacePending"),
        "Reconciling": ("True", "Progressing"),
        "Stalled": ("False", "NotStalled"),
        "Ready": ("False", "workspacePending"),
    }
    assert status.state == "Pending"
    assert status.observed_generation == 1
    assert status.target_node_count == 1


def test_the_steps_make_the_conditions_true_one_after_the_other():
    workspace = making.inference()
    flow = making.workflow(
        workspace,
        preflight="Succeeded",
        provision_nodes=("Succeeded", "", {"candidate": "Standard_NC24ads_A100_v4/on-demand"}),
        await_nodes="Running",
    )
    status = observed(workspace, recorded(workspace), workflows=[flow], nodes=[making.node(workspace, ready=False)])
    assert status.is_true("PreflightSucceeded")
    assert status.is_true("NodeClaimReady")
    assert not status.is_true("ResourceReady")
    assert status.step.name == "await-nodes"
    assert status.step.message == "0 of 1 nodes are Ready"
    assert status.workflow.url.startswith("https://argo/workflows/kaito-hera/team-w-")
    assert status.nodes.candidate == "Standard_NC24ads_A100_v4/on-demand"
    assert status.nodes.usd_per_hour == 3.673
    assert status.nodes.billed_since


def test_a_served_workspace_is_ready():
    workspace = making.inference()
    status = observed(
        workspace,
        recorded(workspace),
        workflows=[making.workflow(workspace, phase="Succeeded", await_nodes="Succeeded", roll_out="Succeeded")],
        nodes=[making.node(workspace)],
        deployments=[making.deployment(workspace)],
    )
    for name in ("ResourceReady", "InferenceReady", "WorkspaceReady", "WorkspaceSucceeded", "Ready"):
        assert status.is_true(name), name
    assert said(status)["Reconciling"] == ("False", "Settled")
    assert status.state == "Ready"
    assert status.worker_nodes == ("node-1",)
    assert status.satisfied == reached(workspace, "nodes", "serve")


def test_what_was_true_can_become_false_without_any_workflow():
    workspace = making.inference()
    objects = {"nodes": [making.node(workspace)], "deployments": [making.deployment(workspace)]}
    ready = observed(workspace, recorded(workspace, satisfied=reached(workspace, "nodes", "serve")), **objects)
    assert ready.state == "Ready"
    objects["deployments"] = [making.deployment(workspace, ready=0)]
    down = observed(workspace, ready, **objects)
    assert said(down)["InferenceReady"] == ("False", "WorkspaceInferenceStatusPending")
    assert not down.is_true("WorkspaceReady")
    assert down.state == "NotReady"
    objects["nodes"] = [making.node(workspace, ready=False)]
    lost = observed(workspace, down, **objects)
    assert said(lost)["ResourceReady"] == ("False", "NodesNotReady")
    assert "node-1" in lost.condition("ResourceReady").message


def test_a_transition_time_moves_only_when_the_status_flips():
    workspace = making.inference()
    first = observed(workspace, Status())
    past = tuple(c.model_copy(update={"last_transition_time": making.ago(500)}) for c in first.conditions)
    flow = making.workflow(workspace, preflight="Succeeded")
    before = recorded(workspace, conditions=past)
    status = observed(workspace, before, workflows=[flow])
    assert status.condition("PreflightSucceeded").last_transition_time == making.ago(0)
    assert status.condition("ResourceReady").last_transition_time == making.ago(500)


def test_a_failed_step_says_why_in_its_condition():
    workspace = making.inference()
    message = making.failed_message("UnknownPreset", "inference.preset.name: 'phi-33' is not known", retryable=False)
    flow = making.workflow(workspace, phase="Failed", preflight=("Failed", message))
    status = observed(workspace, recorded(workspace), workflows=[flow])
    assert said(status)["PreflightSucceeded"] == ("False", "UnknownPreset")
    assert said(status)["Stalled"] == ("True", "UnknownPreset")
    assert said(status)["Ready"] == ("False", "workspaceFailed")
    assert "phi-33" in status.condition("WorkspaceReady").message
    assert status.workflow.failures == 1
    assert status.state == "NotReady"


def test_a_failure_is_counted_once():
    workspace = making.inference()
    flow = making.workflow(workspace, phase="Failed", preflight=("Failed", "main: Error (exit code 1)"))
    once = observed(workspace, recorded(workspace), workflows=[flow])
    assert observed(workspace, once, workflows=[flow]) == once
    assert once.workflow.failures == 1


def test_a_user_s_retry_in_argo_reopens_the_attempt():
    workspace = making.inference()
    flow = making.workflow(workspace, phase="Failed", preflight=("Failed", "main: Error (exit code 1)"))
    failed = observed(workspace, recorded(workspace), workflows=[flow])
    again = observed(workspace, failed, workflows=[making.workflow(workspace, preflight="Running")])
    assert said(again)["Reconciling"] == ("True", "Progressing")
    assert again.workflow.phase == "Running"


def test_a_retry_that_is_to_come_is_announced_with_its_time():
    workspace = making.inference()
    message = making.failed_message("ProvisioningFailed", "no quota", retryable=True)
    flow = making.workflow(workspace, phase="Failed", provision_nodes=("Failed", message))
    status = observed(workspace, recorded(workspace), workflows=[flow])
    assert said(status)["Reconciling"] == ("True", "RetryPending")
    assert "2026-01-02T03:04:14Z" in status.condition("Reconciling").message


def test_an_argo_that_does_not_answer_is_named():
    workspace = making.inference()
    status = observed(workspace, recorded(workspace), workflows=[making.workflow(workspace, phase="", age=121)])
    assert said(status)["Reconciling"] == ("True", "EngineNotResponding")
    young = observed(workspace, recorded(workspace), workflows=[making.workflow(workspace, phase="", age=119)])
    assert said(young)["Reconciling"] == ("True", "Progressing")


def test_a_workflow_that_cannot_be_made_is_explained():
    workspace = making.inference()
    before = recorded(workspace)
    told = before.workflow.model_copy(update={"message": "ClusterUnavailable: the server could not find the resource"})
    status = observed(workspace, before.model_copy(update={"workflow": told}))
    assert said(status)["Reconciling"] == ("True", "EngineIncompatible")
    later = observed(workspace, status, workflows=[making.workflow(workspace, preflight="Running")])
    assert later.workflow.message == ""


# ---------------------------------------------------------------------- tuning


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (
            {"type": "PodScheduled", "status": "False", "message": "0/3 nodes: Insufficient nvidia.com/gpu"},
            "Unschedulable",
        ),
        (None, "WorkspaceInferenceStatusPending"),
    ],
)
def test_a_server_s_pod_that_waits_says_why(condition, expected):
    workspace = making.inference()
    conditions = [condition] if condition else []
    status = observed(
        workspace,
        recorded(workspace),
        workflows=[making.workflow(workspace, await_nodes="Succeeded", roll_out="Running")],
        nodes=[making.node(workspace)],
        deployments=[making.deployment(workspace, ready=0)],
        pods=[making.pod(workspace, "serving", phase="Pending", conditions=conditions)],
    )
    assert said(status)["InferenceReady"] == ("False", expected)


def test_a_server_that_crashes_is_quoted():
    workspace = making.inference()
    word = '{"reason": "ModelNotFound", "message": "the hub has no such model", "retryable": true}'
    crashed = {
        "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}},
        "lastState": {"terminated": {"exitCode": 12, "message": word}},
    }
    status = observed(
        workspace,
        recorded(workspace),
        workflows=[making.workflow(workspace, roll_out="Running")],
        deployments=[making.deployment(workspace, ready=0)],
        pods=[making.pod(workspace, "serving", statuses=[crashed])],
    )
    assert said(status)["InferenceReady"] == ("False", "ModelNotFound")


# ---------------------------------------------------------------------- nodes that were brought


def test_brought_nodes_are_known_by_the_step_that_found_them():
    workspace = making.inference()
    flow = making.workflow(
        workspace, phase="Succeeded", await_nodes=("Succeeded", "", {"nodes": '["b", "a"]'}), roll_out="Succeeded"
    )
    byo = Settings(node_provider="byo")
    status = observed(workspace, recorded(workspace), byo, workflows=[flow], deployments=[making.deployment(workspace)])
    assert status.worker_nodes == ("a", "b")
    assert status.nodes is None
    nodes = [making.node(name="a")]
    later = observed(workspace, status, byo, workflows=[flow], deployments=[making.deployment(workspace)], nodes=nodes)
    assert later.is_true("ResourceReady")


def test_a_status_survives_the_api_server():
    workspace = making.tuning()
    status = observed(
        workspace, recorded(workspace, kind="tune"), workflows=[making.workflow(workspace, preflight="Running")]
    )
    assert Status.of({"status": status.dump()}) == status


def test_a_status_of_another_version_is_read_as_far_as_it_can_be():
    workspace = making.tuning()
    stored = recorded(workspace, kind="tune").dump()
    newer = {**stored, "unheardOf": 1, "workflow": {**stored["workflow"], "shard": "a"}, "step": {"name": 7}}
    read = Status.of({"status": newer})
    assert (read.workflow, read.step) == (recorded(workspace, kind="tune").workflow, None)


def test_what_an_attempt_leaves_behind_is_named_as_null():
    workspace = making.inference()
    flow = making.workflow(workspace, preflight="Running")
    dumped = observed(workspace, recorded(workspace), workflows=[flow]).dump()
    assert dumped["step"]["percent"] is None, "a merge patch keeps what it does not name"
    assert dumped["tuning"] is None


def test_a_running_step_is_not_said_to_have_not_begun():
    workspace = making.inference()
    first = observed(workspace, recorded(workspace))
    flow = making.workflow(workspace, preflight="Succeeded", provision_nodes="Running")
    status = observed(workspace, first, workflows=[flow])
    assert status.condition("NodeClaimReady").message == "step provision-nodes runs"


def test_an_order_that_is_refused_is_held_but_not_billed():
    workspace = making.inference()
    message = making.failed_message("ProvisioningFailed", "no quota", retryable=True)
    flow = making.workflow(workspace, phase="Failed", provision_nodes=("Failed", message))
    nodes = observed(workspace, recorded(workspace), workflows=[flow]).nodes
    assert (nodes.held, nodes.billed_since) == (True, "")
    flow = making.workflow(workspace, provision_nodes="Running")
    nodes = observed(workspace, recorded(workspace), workflows=[flow], nodes=[making.node(workspace)]).nodes
    assert (nodes.held, nodes.billed_since) == (True, making.ago(8))


def test_a_condition_holds_a_long_message():
    Condition(
        type="Ready",
        status="True",
        reason="r",
        message="x" * 32768,
        last_transition_time=making.ago(0),
        observed_generation=1,
    )


@pytest.mark.parametrize("kind", ["serve", "release"])
def test_warnings_of_what_is_wanted_no_more_are_gone(kind):
    workspace = making.inference()
    flow = making.workflow(workspace, kind=kind, preflight="Running")
    current = WorkflowStatus(name=flow["metadata"]["name"], kind=kind, attempt=1, generation=1)
    before = Status(workflow=current, warnings=("tight",), observed_generation=1)
    assert observed(workspace, before, workflows=[flow]).warnings == ("tight",)
    after = making.edited(workspace, instanceType="Standard_NC48ads_A100_v4")
    assert observed(after, before, workflows=[flow]).warnings == ()


def test_an_edit_that_the_running_attempt_cannot_take_up_is_told_for_as_long_as_it_runs():
    workspace = making.tuning()
    longer = making.edited(workspace, resource={**workspace["resource"], "provisioningTimeoutSeconds": 60})
    flow = making.workflow(workspace, kind="tune", preflight="Running")
    before = observed(workspace, recorded(workspace, kind="tune", warnings=("tight",)), workflows=[flow])
    assert before.warnings == ("tight",)
    late = "deadlines of nodes and servers, checkpoints and Secrets count from the next attempt on"
    told = ("tight", f"edited since attempt 1 began: {late}")
    after = observed(longer, before, workflows=[flow])
    assert after.warnings == told
    assert observed(longer, after, workflows=[flow]).warnings == told, "said once"
    ended = making.workflow(workspace, kind="tune", phase="Succeeded", preflight="Running")
    assert observed(longer, after, workflows=[ended]).warnings == ("tight",)
    other = making.edited(workspace, tuning={**workspace["tuning"], "config": "mine"})
    assert observed(other, after, workflows=[flow]).warnings == (), "that begins an attempt of its own"
