from kaito_hera import show
from kaito_hera.observe import observe
from kaito_hera.settings import Azure, Settings
from kaito_hera.status import NodesStatus, Status, WorkflowStatus
from tests import making

AZURE = Azure(tenant_id="t", client_id="c", subscription_id="s", resource_group="g", cluster_name="a", location="l")
AKS = Settings(node_provider="aks", azure=AZURE)


def shown(workspace, status, losses=()):
    return show.render({**workspace, "status": status.dump()}, making.NOW, losses)


def test_a_new_workspace_shows_what_it_waits_for():
    text = shown(making.inference(), observe(making.parsed(making.inference()), Status(), making.live(), AKS))
    assert text.splitlines()[0] == "team/w  Pending"
    assert "· PreflightSucceeded  PreflightPending: step preflight has not begun" in text


def test_training_shows_its_progress_and_its_loss():
    workspace = making.tuning()
    flow = making.workflow(workspace, kind="tune", await_nodes="Succeeded", train="Running", age=75)
    progress = {"phase": "train", "percent": 50, "step": 12, "max_steps": 24, "loss": 1.5, "eta_seconds": 90}
    before = Status(workflow=WorkflowStatus(name=flow["metadata"]["name"], kind="tune", attempt=1, generation=1))
    seen = making.live(
        workflows=[flow], jobs=[making.job(workspace, progress=progress)], pods=[making.pod(workspace, "tuning")]
    )
    text = shown(workspace, observe(making.parsed(workspace), before, seen, AKS), losses=(4.0, 3.0, 1.5))
    assert "step      train for 1 min 14 s  [############............]  50 %  train" in text
    assert "training  step 12 of 24, loss 1.5000, 1 min 30 s left" in text
    assert "loss      █▅▁  4.00 to 1.50" in text


def test_what_it_costs_grows_with_time_and_is_never_stored():
    nodes = NodesStatus(
        candidate="A100/on-demand", usd_per_hour=4.0, billed_since=making.ago(1800), billed_seconds=1800
    )
    text = shown(making.inference(), Status(nodes=nodes, worker_nodes=("n1",)))
    assert "A100/on-demand: n1, 4.00 USD/h, 1 h 0 min billed, about 4.00 USD so far" in text


def test_a_sparkline_thins_a_long_series_out():
    assert len(show.sparkline(tuple(range(1000)))) == 40
    assert show.sparkline((1.0, 1.0)) == "▁▁"
    assert show.sparkline(()) == ""
