import pytest

from kaito_hera.settings import Settings
from kaito_hera.status import NodesStatus, Status, TuningStatus
from tests import making
from tests.kaito_hera.observing import AKS, observed, reached, recorded, said


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


def test_what_training_tells_is_in_status():
    workspace = making.tuning()
    told = {"eval_loss": 1.5, "learning_rate": 2e-4, "gpu_memory_gib": 7.9, "tokens_per_second": 90.5}
    progress = {"phase": "train", "percent": 40, **told, "message": "the second pass", "grad_norm": 0.5}
    status = observed(
        workspace,
        recorded(workspace, kind="tune"),
        workflows=[making.workflow(workspace, kind="tune", train="Running")],
        jobs=[making.job(workspace, progress=progress)],
    )
    assert status.step.message == "the second pass"
    assert told.items() <= status.tuning.model_dump().items()


@pytest.mark.parametrize("field", ["resumed_from_step", "eval_loss"])
@pytest.mark.parametrize(("told", "shown"), [(None, None), (9, 9)])
def test_what_an_earlier_attempt_said_of_itself_goes(field, told, shown):
    workspace = making.tuning()
    before = recorded(workspace, kind="tune").model_copy(update={"tuning": TuningStatus(step=7, **{field: 5})})
    progress = {"phase": "train", "percent": 40, "step": 12, **({field: told} if told else {})}
    status = observed(
        workspace,
        before,
        workflows=[making.workflow(workspace, kind="tune", train="Running")],
        jobs=[making.job(workspace, progress=progress)],
    )
    assert (status.tuning.step, getattr(status.tuning, field)) == (12, shown)


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
    assert status.state == "Running", "it is to be served, and nobody is told of an end before that"
    objects = {"nodes": [making.node(workspace)], "deployments": [making.deployment(workspace)]}
    answers = observed(workspace, status, workflows=[flow], **objects)
    assert (answers.state, answers.is_true("InferenceReady")) == ("Running", True), "its roll-out has not ended"
    flow = making.workflow(
        workspace,
        kind="tune",
        phase="Succeeded",
        await_nodes="Succeeded",
        train=("Succeeded", "", adapter),
        roll_out="Succeeded",
    )
    served = observed(workspace, answers, workflows=[flow], **objects)
    assert (served.state, served.is_true("WorkspaceReady")) == ("Succeeded", True)
    down = observed(workspace, served, workflows=[flow], nodes=objects["nodes"])
    assert (down.state, down.is_true("WorkspaceSucceeded")) == ("NotReady", True)


def test_other_data_is_tuned_anew_while_the_earlier_adapter_is_served():
    workspace = making.tuning()
    steps = {"await_nodes": "Succeeded", "train": ("Succeeded", "", {"adapter": "a@sha256:1"}), "roll_out": "Succeeded"}
    flow = making.workflow(workspace, kind="tune", phase="Succeeded", **steps)
    objects = {"nodes": [making.node(workspace)], "deployments": [making.deployment(workspace)]}
    done = observed(workspace, recorded(workspace, kind="tune"), workflows=[flow], **objects)
    assert [(one.name, one.source) for one in done.serving.adapters] == [("w", "a@sha256:1")]
    after = making.edited(workspace, tuning={**workspace["tuning"], "config": "mine"})
    status = observed(after, done, workflows=[flow], **objects)
    assert (status.state, status.is_true("WorkspaceSucceeded")) == ("Pending", False)
    assert (status.is_true("WorkspaceReady"), status.condition("WorkspaceReady").observed_generation) == (True, 1)
    assert status.condition("JobStarted").observed_generation == 1


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
    "text",
    [
        "oops",
        "[1]",
        '{"percent": "many"}',
        '{"loss": NaN}',
        '{"step": 1' + "0" * 30 + "}",
        '{"phase": "' + "x" * 65 + '"}',
    ],
)
def test_progress_that_cannot_be_read_is_none(text):
    workspace = making.tuning()
    job = making.job(workspace)
    job["metadata"]["annotations"] = {"kaito.sh/progress": text}
    flow = making.workflow(workspace, kind="tune", train="Running")
    status = observed(workspace, recorded(workspace, kind="tune"), workflows=[flow], jobs=[job])
    assert (status.step.name, status.step.percent) == ("train", None)


def test_an_earlier_attempt_s_pod_starts_no_job():
    workspace = making.tuning()
    flow = making.workflow(workspace, 2, kind="tune", preflight="Running")
    old = making.pod(workspace, "tuning", phase="Failed", attempt=1)
    status = observed(workspace, recorded(workspace, 2, kind="tune"), workflows=[flow], pods=[old])
    assert not status.is_true("JobStarted")


@pytest.mark.parametrize(
    ("settings", "nodes", "told"),
    [
        (AKS, None, "the nodes were given back"),
        (Settings(), None, "no node is used any more; those that were brought stay where they are"),
        (Settings(), NodesStatus(inherited=True), "the nodes were given back"),
    ],
    ids=["aks", "byo", "of KAITO's"],
)
def test_a_release_says_what_became_of_the_nodes(settings, nodes, told):
    workspace = making.tuning_only()
    flow = making.workflow(workspace, kind="tune", phase="Succeeded", train="Succeeded", release="Succeeded")
    found = observed(workspace, recorded(workspace, kind="tune", nodes=nodes), settings, workflows=[flow])
    assert {found.condition(name).message for name in ("NodeClaimReady", "ResourceReady")} == {
        f"the adapter is pushed and nothing is to be served: {told}"
    }
