import pytest

from kaito_hera import show, status
from kaito_hera.observe import observe
from kaito_hera.settings import Azure, Settings
from kaito_hera.status import (
    Condition,
    Engine,
    NodesStatus,
    Refusal,
    ServedAdapter,
    ServingStatus,
    Status,
    StepStatus,
    TuningStatus,
    WorkflowStatus,
)
from tests import making

AZURE = Azure(tenant_id="t", client_id="c", subscription_id="s", resource_group="g", cluster_name="a", location="l")
AKS = Settings(node_provider="aks", azure=AZURE)


def shown(workspace, status, losses=()):
    return show.render({**workspace, "status": status.dump()}, making.NOW, losses)


def attempt(workspace, *, failures=0, phase="Running", **steps):
    """The status while its first attempt looks like this, and what was seen."""
    flow = making.workflow(workspace, phase=phase, **steps)
    name = flow["metadata"]["name"]
    before = Status(workflow=WorkflowStatus(name=name, kind="serve", attempt=1, generation=1, failures=failures))
    return observe(making.parsed(workspace), before, making.live(workflows=[flow]), AKS)


def failed(reason, message, *, retryable):
    workspace = making.inference()
    said = ("Failed", making.failed_message(reason, message, retryable=retryable))
    return shown(workspace, attempt(workspace, phase="Failed", preflight=said))


def condition(name, verdict, reason, message=""):
    return Condition(
        type=name,
        status=verdict,
        reason=reason,
        message=message,
        last_transition_time=making.ago(9),
        observed_generation=1,
    )


def test_a_new_workspace_shows_what_it_waits_for():
    text = shown(making.inference(), observe(making.parsed(making.inference()), Status(), making.live(), AKS))
    assert text.splitlines()[0] == "team/w  Pending"
    assert "· PreflightSucceeded  PreflightPending: step preflight has not begun" in text


def test_training_shows_its_progress_and_its_loss():
    workspace = making.tuning()
    flow = making.workflow(workspace, kind="tune", await_nodes="Succeeded", train="Running", age=75)
    progress = {
        "phase": "train",
        "percent": 50,
        "step": 12,
        "max_steps": 24,
        "loss": 1.5,
        "eval_loss": 1.25,
        "learning_rate": 0.0002,
        "gpu_memory_gib": 7.94,
        "eta_seconds": 90,
        "message": "the second pass",
        "resumed_from_step": 8,
    }
    before = Status(workflow=WorkflowStatus(name=flow["metadata"]["name"], kind="tune", attempt=1, generation=1))
    seen = making.live(
        workflows=[flow], jobs=[making.job(workspace, progress=progress)], pods=[making.pod(workspace, "tuning")]
    )
    text = shown(workspace, observe(making.parsed(workspace), before, seen, AKS), losses=(4.0, 3.0, 1.5))
    assert "step      train for 1 min 14 s  [############............]  50 %  the second pass" in text
    told = "loss 1.5000, 1.2500 on rows held out, rate 0.0002, 7.9 GiB of GPU memory, 1 min 30 s left"
    assert f"training  step 12 of 24, resumed from step 8, {told}" in text
    assert "loss      █▅▁  4.00 to 1.50" in text


def test_what_it_costs_grows_with_time_and_is_never_stored():
    nodes = NodesStatus(
        candidate="A100/on-demand",
        usd_per_hour=4.0,
        billed_since=making.ago(1800),
        billed_seconds=1800,
        priced_seconds=1800,
        billed_usd=9.0,
    )
    text = shown(making.inference(), Status(nodes=nodes, worker_nodes=("n1",)))
    assert "A100/on-demand: n1, 4.00 USD/h, 1 h 0 min billed, about 11.00 USD so far" in text


@pytest.mark.parametrize(
    ("usd_per_hour", "told"),
    [
        (None, "3 h 0 min billed, about 7.00 USD so far, but for 2 h 0 min whose price is not known"),
        (4.0, "3 h 0 min billed, about 11.00 USD so far, but for 1 h 0 min whose price is not known"),
    ],
    ids=["spot", "on-demand"],
)
def test_of_hours_at_an_unknown_price_only_their_number_is_told(usd_per_hour, told):
    """An hour has ended that cost 7 USD, and one whose price was not known."""
    nodes = NodesStatus(billed_seconds=7200, priced_seconds=3600, billed_usd=7.0)
    nodes = nodes.model_copy(update={"usd_per_hour": usd_per_hour, "billed_since": making.ago(3600)})
    assert shown(making.inference(), Status(nodes=nodes)).endswith(told)


@pytest.mark.parametrize(
    ("nodes", "told"),
    [
        (NodesStatus(held=True), "on their way"),
        (NodesStatus(candidate="A", billed_seconds=60), "A: given back"),
        (NodesStatus(candidate="A"), "A: none in use"),
        (NodesStatus(inherited=True), "those that KAITO made, if any"),
    ],
    ids=["held", "given back", "brought", "inherited"],
)
def test_where_no_node_is_only_bought_ones_were_given_back(nodes, told):
    assert f"  nodes     {told}" in shown(making.inference(), Status(nodes=nodes))


@pytest.mark.parametrize(
    ("nodes", "told"),
    [
        (
            NodesStatus(candidate="A/spot", held=True, billed_since=making.ago(60)),
            "A/spot: n1, a spot price that changes",
        ),
        (NodesStatus(candidate="A", refused=(Refusal(candidate="B", reason="no node"),)), "  not       B: no node"),
        (NodesStatus(inherited=True), "  nodes     n1\n"),
    ],
    ids=["spot", "refused", "inherited"],
)
def test_what_is_known_of_the_nodes_is_told_and_no_more(nodes, told):
    assert told in shown(making.inference(), Status(nodes=nodes, worker_nodes=("n1",))) + "\n"


def test_which_commit_a_model_is_at_is_told_where_it_was_looked_at():
    found = Status(model=status.ModelStatus(source="acme/tiny", revision="0" * 40))
    assert f"  model     acme/tiny at {'0' * 40}" in shown(making.inference(), found).splitlines()


def test_a_sparkline_thins_a_long_series_out():
    assert len(show.sparkline(tuple(range(1000)))) == 40
    assert show.sparkline((1.0, 1.0)) == "▁▁"
    assert show.sparkline(()) == ""


def test_it_says_when_it_tries_again_and_why_only_once():
    text = failed("SecretNotFound", "no Secret team/push", retryable=True)
    assert "  next      attempt 1 failed, the next starts at 2026-01-02T03:04:" in text
    assert text.count("no Secret team/push") == 1


def test_it_says_what_keeps_the_engine():
    why = condition(status.RECONCILING, "True", "EngineNotResponding", "Argo has not taken it up")
    assert "  next      Argo has not taken it up" in shown(making.inference(), Status(conditions=(why,)))


def test_what_stopped_everything_is_marked_and_said_once_and_the_rest_is_bare():
    lines = failed("UnknownPreset", "inference.preset.name: no gpt-9", retryable=False).splitlines()
    assert lines[1] == "  ✘ PreflightSucceeded  UnknownPreset: inference.preset.name: no gpt-9"
    assert lines[2:6] == ["  · NodeClaimReady", "  · ResourceReady", "  · InferenceReady", "  · WorkspaceReady"]
    again = 'kubectl -n team annotate workspace w --overwrite kaito.sh/retry="$(date)"'
    assert lines[6] == f"  next      edit the Workspace, or, once what is wrong was mended elsewhere: {again}"


def test_a_stop_that_no_condition_carries_has_its_own_line():
    conditions = (
        condition(status.RESOURCE_READY, "True", "workspaceResourceStatusSuccess"),
        condition(status.WORKSPACE_READY, "False", "workspaceFailed", "Internal: a fault of ours"),
        condition(status.STALLED, "True", "Internal", "a fault of ours"),
    )
    lines = shown(making.inference(), Status(conditions=conditions)).splitlines()
    assert lines[1:] == ["  ✔ ResourceReady", "  · WorkspaceReady", "  ✘ Stalled             Internal: a fault of ours"]


def test_the_summary_does_not_repeat_another_line():
    text = shown(making.inference(), attempt(making.inference(), preflight="Running"))
    assert text.count("step preflight runs") == 1
    assert "  · WorkspaceReady\n" in text


def answering(*adapters, **more):
    """The status of a server that was rolled out with these adapters: name, strength, source."""
    taken = tuple(ServedAdapter(name=name, strength=strength, source=source) for name, strength, source in adapters)
    true = condition(status.INFERENCE_READY, "True", "WorkspaceInferenceStatusSuccess")
    return Status(conditions=(true,), serving=ServingStatus(generation=1, adapters=taken), **more)


MODEL = "  answers   http://w.team (/chat, /v1)  model: phi-3-mini-4k-instruct"


def test_a_server_that_answers_says_how_to_ask_it():
    assert shown(making.inference(), answering()).splitlines()[-1] == MODEL
    tuned = answering(("w", "1.0", "x@sha256:1"), tuning=TuningStatus(adapter_image="x@sha256:1"))
    assert shown(making.tuning(), tuned).splitlines()[-1] == f"{MODEL}, adapters w x 1.0"
    assert "answers" not in shown(making.inference(), Status())


def test_a_server_that_answers_one_at_a_time_says_so():
    status = answering()
    engine = Engine(concurrent_requests=1, context=2048, notes=("one request at a time: mamba2",))
    noted = status.model_copy(update={"serving": status.serving.model_copy(update={"engine": engine})})
    lines = shown(making.inference(), noted).splitlines()
    assert lines[-2:] == [MODEL, "  note      one request at a time: mamba2"]


@pytest.mark.parametrize(
    ("source", "told"),
    [("i:1", "b x 1.0"), ("i:2", "another a x 0.5, b x 1.0")],
    ids=["one more", "another of that name"],
)
def test_adapters_that_are_asked_for_and_not_rolled_out_are_told_apart(source, told):
    adapters = [{"source": {"name": "a", "image": source}, "strength": "0.5"}, {"source": {"name": "b", "image": "i"}}]
    workspace = making.edited(making.inference(), inference={**making.inference()["inference"], "adapters": adapters})
    lines = shown(workspace, answering(("a", "0.5", "i:1"))).splitlines()
    assert lines[-2:] == [f"{MODEL}, adapters a x 0.5", f"  asked     adapters {told}: not served yet"]
    assert shown(making.edited(workspace, count=0), answering(("a", "0.5", "i:1"))).splitlines()[-1] == lines[-2]


def test_an_adapter_that_is_being_tuned_anew_is_not_the_one_that_answers():
    lines = shown(making.tuning(), answering(("w", "1.0", "x@sha256:1"), tuning=TuningStatus())).splitlines()
    assert lines[-2:] == [f"{MODEL}, adapters w x 1.0", "  asked     adapters another w x 1.0: not served yet"]


def test_what_an_update_leaves_standing_is_told_without_its_step():
    said = "generation 1 is served, generation 2 not yet: step roll-out"
    ready = condition(status.WORKSPACE_READY, "True", "workspaceReady", said)
    text = shown(making.inference(), Status(conditions=(ready,)))
    assert text.splitlines()[1] == "  ✔ WorkspaceReady      generation 1 is served, generation 2 not yet"


def training(step, *, age):
    return Status(
        state="Running",
        step=StepStatus(name="train", since=making.ago(age), message="train", percent=step),
        tuning=TuningStatus(step=step, max_steps=100, loss=1.0),
        nodes=NodesStatus(candidate="A100", usd_per_hour=4.0, billed_since=making.ago(age)),
    )


def lines_of(seen):
    return show.lines({**making.tuning(), "status": seen.dump()}, making.NOW)


def test_only_what_is_new_is_told_again_and_progress_by_tenths():
    first = lines_of(training(41, age=60))
    assert show.news(first, []) == [line.text for line in first]
    assert show.news(lines_of(training(49, age=90)), first) == []
    assert [line.split()[0] for line in show.news(lines_of(training(50, age=90)), first)] == ["step", "training"]


def test_a_step_that_begins_is_told_by_its_own_line():
    waits, runs = (lines_of(attempt(making.inference(), **steps)) for steps in ({}, {"preflight": "Running"}))
    assert [line.split()[0] for line in show.news(runs, waits)] == ["step"]


def test_a_terminal_is_redrawn_in_place():
    lines = [show.Line("a" * 25, ""), show.Line("b", "")]
    assert show.redrawn(lines, [], 10) == "a" * 25 + "\nb"
    assert show.redrawn(lines[1:], lines, 10) == "\033[4A\033[Jb"


def test_words_of_servers_move_no_cursor():
    text = failed("DataNotFound", "the server answers 404 \x1b[2J\u202egone", retryable=False)
    assert "404 \\x1b[2J\\u202egone" in text
