import pytest

from kaito_hera import intent
from kaito_hera.observe import observe
from kaito_hera.settings import Azure, Settings
from kaito_hera.status import Condition, NodesStatus, Satisfied, Status, TuningStatus, WorkflowStatus
from tests import making

AZURE = Azure(tenant_id="t", client_id="c", subscription_id="s", resource_group="g", cluster_name="a", location="l")
AKS = Settings(node_provider="aks", azure=AZURE, argo_url="https://argo")


def recorded(workspace, attempt=1, kind="serve", **more):
    name = making.workflow(workspace, attempt)["metadata"]["name"]
    current = WorkflowStatus(name=name, kind=kind, attempt=attempt, generation=1)
    return Status(workflow=current, **more)


def observed(workspace, before, settings=AKS, **objects):
    seen = making.live(**objects)
    return observe(making.parsed(workspace), before, seen, settings)


def said(status):
    return {c.type: (c.status, c.reason) for c in status.conditions}


def reached(workspace, *parts):
    wanted = intent.of(making.parsed(workspace))
    return Satisfied(**{part: getattr(wanted, part) for part in parts})


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


def test_training_shows_its_progress():
    workspace = making.tuning()
    progress = {"phase": "train", "percent": 40, "step": 12, "max_steps": 30, "epoch": 0.4, "loss": 1.25}
    status = observed(
        workspace,
        recorded(workspace, kind="tune"),
        workflows=[making.workflow(workspace, kind="tune", await_nodes="Succeeded", train="Running")],
        jobs=[making.job(workspace, progress=progress)],
        nodes=[making.node(workspace)],
        pods=[making.pod(workspace, "tuning")],
    )
    assert status.is_true("JobStarted")
    assert status.step.name == "train"
    assert status.step.percent == 40
    assert (status.tuning.step, status.tuning.max_steps, status.tuning.loss) == (12, 30, 1.25)
    assert status.state == "Running"


def test_a_tuning_pod_that_cannot_start_says_why():
    workspace = making.tuning()
    waiting = {"state": {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image x"}}}
    status = observed(
        workspace,
        recorded(workspace, kind="tune"),
        workflows=[making.workflow(workspace, kind="tune", await_nodes="Succeeded", train="Running")],
        pods=[making.pod(workspace, "tuning", phase="Pending", statuses=[waiting])],
    )
    assert said(status)["JobStarted"] == ("False", "ImagePullError")
    assert "pulling image x" in status.condition("JobStarted").message


def test_a_pushed_adapter_is_success_before_it_is_served():
    workspace = making.tuning()
    adapter = {"adapter": "team.azurecr.io/adapter@sha256:1"}
    flow = making.workflow(
        workspace, kind="tune", await_nodes="Succeeded", train=("Succeeded", "", adapter), roll_out="Running"
    )
    before = recorded(workspace, kind="tune")
    status = observed(workspace, before, workflows=[flow], nodes=[making.node(workspace)])
    assert status.is_true("WorkspaceSucceeded")
    assert status.is_true("JobStarted")
    assert not status.is_true("WorkspaceReady")
    assert status.tuning.adapter_image == adapter["adapter"]
    assert status.state == "Succeeded"


def test_an_adapter_that_was_there_already_counts_without_training():
    workspace = making.tuning_only()
    adapter = {"adapter": "team.azurecr.io/adapter@sha256:1"}
    flow = making.workflow(
        workspace,
        kind="tune",
        phase="Succeeded",
        preflight=("Succeeded", "", adapter),
        train="Skipped",
        release="Succeeded",
    )
    status = observed(workspace, recorded(workspace, kind="tune"), workflows=[flow])
    assert status.is_true("WorkspaceReady")
    assert status.tuning.adapter_image == adapter["adapter"]
    assert said(status)["ResourceReady"] == ("False", "Released")
    assert "InferenceReady" not in said(status)
    assert status.nodes is None


def test_after_a_wanted_release_nothing_is_pulled_down():
    workspace = making.tuning_only()
    adapter = {"adapter": "team.azurecr.io/adapter@sha256:1"}
    flow = making.workflow(
        workspace,
        kind="tune",
        phase="Succeeded",
        age=100,
        provision_nodes="Succeeded",
        await_nodes="Succeeded",
        train=("Succeeded", "", adapter),
        release="Succeeded",
    )
    before = recorded(workspace, kind="tune", nodes=NodesStatus(billed_since=making.ago(3600), usd_per_hour=3.0))
    status = observed(workspace, before, workflows=[flow])
    assert said(status)["ResourceReady"] == ("False", "Released")
    assert status.is_true("WorkspaceReady")
    assert status.is_true("Ready")
    assert status.nodes.billed_since == ""
    assert status.nodes.billed_seconds == 3600 - 100 + 3 + 1
    assert observed(workspace, status, workflows=[flow]) == status


def test_another_intent_forgets_the_earlier_adapter():
    before = making.tuning()
    status = Status(
        tuning=TuningStatus(adapter_image="team.azurecr.io/adapter@sha256:1"), satisfied=reached(before, "tune")
    )
    after = making.edited(before, tuning={**before["tuning"], "method": "lora"})
    assert observed(after, status).tuning.adapter_image == ""


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


def test_a_condition_holds_a_long_message():
    Condition(
        type="Ready",
        status="True",
        reason="r",
        message="x" * 32768,
        last_transition_time=making.ago(0),
        observed_generation=1,
    )
