"""Tuning together with inference: what of it runs again after an edit, and what it says of itself on the way."""

import datetime

import pytest

from kaito_hera import intent, refusals
from kaito_hera.decide import Start
from kaito_hera.intent import Parts
from kaito_hera.status import NodesStatus, TuningStatus
from tests import making
from tests.kaito_hera.deciding import AKS, decided, status
from tests.kaito_hera.observing import observed, recorded, said
from workflows.plan import plan

ADAPTER = f"team.azurecr.io/adapter@sha256:{'1' * 64}"
STYLE = {"source": {"name": "style", "image": "team.azurecr.io/style:1"}}
CLAIM = {"persistentVolumeClaim": {"claimName": "styles"}}


def with_inference(*adapters, **more):
    before = making.tuning()
    inference = {"preset": before["tuning"]["preset"], **({"adapters": list(adapters)} if adapters else {}), **more}
    return making.edited(before, inference=inference)


def only_tuned(**tuning):
    before = making.tuning()
    return {**before, "tuning": {**before["tuning"], "serve": False, **tuning}}


def told(workspace):
    """What is said of it though it stops nothing."""
    found = refusals.findings(making.parsed(workspace), AKS, datetime.date(2026, 1, 2))
    assert not any(finding.fatal for finding in found)
    return [str(finding) for finding in found]


def of(workspace):
    return intent.of(making.parsed(workspace))


def tuned_and_serving(workspace):
    flow = making.workflow(
        workspace, kind="tune", phase="Succeeded", train=("Succeeded", "", {"adapter": ADAPTER}), roll_out="Succeeded"
    )
    seen = making.live(workflows=[flow], nodes=[making.node(workspace)], deployments=[making.deployment(workspace)])
    done = status(workspace, "nodes", "tune", "serve", kind="tune", phase="Succeeded")
    return done.model_copy(update={"tuning": TuningStatus(adapter_image=ADAPTER)}), seen


def test_inference_that_asks_for_nothing_new_changes_nothing_that_runs():
    done, seen = tuned_and_serving(making.tuning())
    assert of(with_inference()) == of(making.tuning())
    assert decided(with_inference(), done, seen) == []


@pytest.mark.parametrize(
    "after",
    [
        pytest.param(with_inference(STYLE), id="adapters"),
        pytest.param(with_inference({"source": {"name": "style", "volumeSource": CLAIM}}), id="adapters on a volume"),
        pytest.param(with_inference(config="mine"), id="config"),
    ],
)
def test_inference_added_to_a_finished_tuning_is_a_roll_out_alone(after):
    done, seen = tuned_and_serving(making.tuning())
    assert of(after).tune == of(making.tuning()).tune
    assert decided(after, done, seen) == [Start(Parts(serve=True), failures=0)]


def test_the_roll_out_gets_the_adapter_and_preflight_knows_it():
    made = plan(making.parsed(with_inference(STYLE)), AKS, attempt=2, parts=Parts(serve=True), adapter=ADAPTER)
    groups = next(t["steps"] for t in made["spec"]["templates"] if t["name"] == made["spec"]["entrypoint"])
    steps = [step for group in groups for step in group]
    given = {step["name"]: {p["name"]: p["value"] for p in step["arguments"]["parameters"]} for step in steps}
    assert list(given) == ["preflight", "roll-out"]
    assert given["preflight"]["adapter"] == given["roll-out"]["adapter"] == ADAPTER


def test_a_new_edit_of_tuning_tunes_and_rolls_out_again():
    done, seen = tuned_and_serving(with_inference(STYLE))
    after = making.edited(with_inference(STYLE), generation=3, tuning={**making.tuning()["tuning"], "method": "lora"})
    assert decided(after, done, seen) == [Start(Parts(tune=True, serve=True), failures=0)]


def test_a_roll_out_that_failed_is_tried_again_without_training():
    workspace = with_inference(STYLE)
    message = making.failed_message("ServerNotReady", "not in time", retryable=True)
    flow = making.workflow(
        workspace,
        kind="tune",
        phase="Failed",
        age=100,
        await_nodes="Succeeded",
        train=("Succeeded", "", {"adapter": ADAPTER}),
        roll_out=("Failed", message),
    )
    flow["status"]["finishedAt"] = making.ago(90)
    seen = making.live(workflows=[flow], nodes=[making.node(workspace)])
    before = status(workspace, kind="tune", generation=2)
    assert decided(workspace, before, seen) == [Start(Parts(serve=True), failures=1)]


def test_serve_false_says_the_same_as_the_annotation():
    assert of(only_tuned()) == of(making.tuning_only())
    assert not making.parsed(only_tuned()).serves
    assert of(only_tuned(serve=True)) == of(making.tuning())


def test_serve_false_gives_back_what_served():
    done, seen = tuned_and_serving(making.tuning())
    held = done.model_copy(update={"nodes": NodesStatus(held=True)})
    assert decided(making.edited(only_tuned()), held, seen) == [Start(Parts(), failures=0)]


def test_serving_that_is_wanted_after_all_gets_nodes_and_no_training():
    done = status(only_tuned(), "tune", kind="tune", phase="Succeeded")
    seen = making.live(workflows=[making.workflow(only_tuned(), kind="tune", phase="Succeeded", release="Succeeded")])
    assert decided(with_inference(STYLE), done, seen) == [Start(Parts(nodes=True, serve=True), failures=0)]


def test_it_is_succeeded_when_tuned_and_ready_when_it_serves():
    workspace = with_inference(STYLE)
    steps = {"await_nodes": "Succeeded", "train": ("Succeeded", "", {"adapter": ADAPTER})}
    nodes = [making.node(workspace)]
    rolling = observed(
        workspace,
        recorded(workspace, kind="tune"),
        workflows=[making.workflow(workspace, kind="tune", roll_out="Running", **steps)],
        nodes=nodes,
    )
    assert rolling.is_true("WorkspaceSucceeded")
    assert (rolling.is_true("WorkspaceReady"), rolling.is_true("Ready")) == (False, False)
    assert said(rolling)["InferenceReady"][0] == "False"
    serving = observed(
        workspace,
        rolling,
        workflows=[making.workflow(workspace, kind="tune", phase="Succeeded", roll_out="Succeeded", **steps)],
        nodes=nodes,
        deployments=[making.deployment(workspace)],
    )
    for name in ("JobStarted", "InferenceReady", "WorkspaceSucceeded", "WorkspaceReady", "Ready"):
        assert serving.is_true(name), name
    assert serving.tuning.adapter_image == ADAPTER


def test_inference_that_nobody_serves_is_said():
    both = {**only_tuned(), "inference": {"preset": making.tuning()["tuning"]["preset"]}}
    said_of = "inference: nothing is served, since tuning.serve or the annotation kaito.sh/serve is false"
    assert told(both) == [said_of]
    assert told(only_tuned()) == told(with_inference()) == []


def test_a_volume_under_an_adapter_is_said_to_restart_the_server():
    workspace = with_inference(STYLE, {"source": {"name": "b", "volumeSource": CLAIM}})
    (said_of,) = told(workspace)
    assert said_of.startswith("inference.adapters[1].source.volumeSource: the server mounts this volume")
