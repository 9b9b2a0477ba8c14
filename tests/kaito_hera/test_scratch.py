"""What was trained onto a volume: pushed without nodes and without training again, told on the way."""

import pytest

from kaito_hera import names
from kaito_hera.decide import DeleteJob, Start
from kaito_hera.intent import Parts
from kaito_hera.status import NodesStatus, TuningStatus
from tests import making
from tests.kaito_hera.deciding import AKS, decided, satisfied, status
from tests.kaito_hera.observing import observed, said

ADAPTER = f"team.azurecr.io/adapter@sha256:{'1' * 64}"
LEFT = ("Succeeded", "", {"adapter": ""})
PUSHED = ("Succeeded", "", {"adapter": ADAPTER})
REFUSED = making.failed_message("PushUnauthorized", "tuning.output.imagePushSecret: 401", retryable=False)
AWAY = making.failed_message("RegistryUnavailable", "it does not answer", retryable=True)
GONE = making.failed_message("AdapterGone", "claim team/w is missing", retryable=True)
HELD = NodesStatus(held=True)
PUSH = [Start(Parts(push=True), failures=0)]


def flow(workspace, kind="tune", attempt=1, phase="Running", **steps):
    made = making.workflow(workspace, attempt, kind=kind, phase=phase, age=100, **steps)
    made["status"]["finishedAt"] = making.ago(90)
    return made


def next_of(workspace, *parts, made, **before):
    """What is decided after the Workflow has ended."""
    kind, phase = made["metadata"]["labels"][names.WORKFLOW], made["status"]["phase"]
    seen = making.live(workflows=[made], nodes=[making.node(workspace)] if before.get("nodes") else [])
    return decided(workspace, status(workspace, *parts, kind=kind, phase=phase, **before), seen)


def test_what_only_tunes_gives_its_nodes_back_and_pushes_in_one_attempt():
    workspace = making.tuning_only()
    made = flow(workspace, await_nodes="Succeeded", train=LEFT, release="Succeeded", push="Running")
    after = observed(workspace, status(workspace, nodes=HELD, kind="tune"), settings=AKS, workflows=[made])
    assert after.satisfied.trained == satisfied(workspace, "trained").trained != ""
    assert (after.satisfied.tune, after.satisfied.nodes, after.nodes.held) == ("", "", False)
    assert said(after)["JobStarted"][0] == "True"
    assert said(after)["WorkspaceSucceeded"][0] == "False"
    assert "finished, and pushed from its volume" in after.condition("ResourceReady").message
    done = flow(workspace, phase="Succeeded", train=LEFT, release="Succeeded", push=PUSHED)
    after = observed(workspace, after, settings=AKS, workflows=[done])
    assert (after.satisfied.trained, after.satisfied.tune) == ("", satisfied(workspace, "tune").tune)
    assert after.tuning.adapter_image == ADAPTER
    assert said(after)["WorkspaceSucceeded"][0] == "True"


@pytest.mark.parametrize("end", [AWAY, GONE])
def test_a_push_that_failed_is_tried_again_without_training_while_the_volume_is_there(end):
    workspace = making.tuning_only()
    made = flow(workspace, phase="Failed", train=LEFT, release="Succeeded", push=("Failed", end))
    again = Parts(nodes=True, tune=True) if end == GONE else Parts(push=True)
    assert next_of(workspace, made=made) == [Start(again, failures=0)]
    later = flow(workspace, "push", phase="Failed", push=("Failed", end))
    assert next_of(workspace, "trained", made=later) == [Start(again, failures=0)]


def test_a_push_that_is_refused_stalls_with_its_reason_and_a_word_of_the_user_pushes_again():
    workspace = making.tuning_only()
    made = flow(workspace, "push", phase="Failed", push=("Failed", REFUSED))
    before = status(workspace, "trained", kind="push", phase="Failed")
    after = observed(workspace, before, settings=AKS, workflows=[made])
    assert said(after)["Stalled"] == ("True", "PushUnauthorized")
    assert said(after)["JobStarted"] == ("False", "PushUnauthorized")
    assert next_of(workspace, "trained", made=made) == []
    workspace["metadata"]["annotations"] = {"kaito.sh/retry": "now"}
    stale = before.model_copy(update={"conditions": after.conditions})
    assert decided(workspace, stale, making.live(workflows=[made])) == PUSH


def test_nodes_that_are_to_serve_go_back_while_the_registry_is_away_and_come_again_afterwards():
    workspace = making.tuning()
    ended = flow(workspace, phase="Succeeded", await_nodes="Succeeded", train=LEFT, push=LEFT, roll_out="Skipped")
    assert next_of(workspace, made=ended, nodes=HELD) == [Start(Parts(), failures=0)]
    released = flow(workspace, "release", phase="Succeeded", release="Succeeded")
    assert next_of(workspace, "trained", "nodes", made=released, nodes=HELD) == PUSH
    pushed = flow(workspace, "push", phase="Succeeded", push=PUSHED)
    assert next_of(workspace, "trained", made=pushed) == [Start(Parts(nodes=True, serve=True), failures=0)]


def test_brought_nodes_are_not_given_back_and_the_push_follows_at_once():
    workspace = making.tuning()
    ended = flow(workspace, phase="Succeeded", await_nodes="Succeeded", train=LEFT, push=LEFT, roll_out="Skipped")
    assert next_of(workspace, made=ended) == PUSH


def test_an_adapter_that_is_pushed_in_time_is_served_in_the_same_attempt():
    workspace = making.tuning()
    made = flow(workspace, await_nodes="Succeeded", train=LEFT, push=PUSHED, roll_out="Running")
    before = status(workspace, kind="tune")
    seen = making.live(workflows=[made], nodes=[making.node(workspace)])
    assert decided(workspace, before, seen) == []
    after = observed(workspace, before, settings=AKS, workflows=[made])
    assert after.tuning.adapter_image == ADAPTER
    assert after.satisfied.tune == satisfied(workspace, "tune").tune


@pytest.mark.parametrize(("kept", "setting"), [(True, "disk"), (False, "disk"), (False, "")])
def test_jobs_whose_pods_keep_the_volume_go_once_status_has_the_adapter_s_digest(kept, setting):
    """Also where the setting was taken out since."""
    workspace, jobs = making.tuning_only(), []
    for role, name in (("tuning", names.job), ("push", names.push_job)):
        job = making.job(workspace, role=role, succeeded=1)
        job["metadata"]["name"] = name(making.parsed(workspace), 1)
        jobs.append(job)
    end = PUSHED if not kept else ("Failed", AWAY)
    made = flow(workspace, phase="Failed" if kept else "Succeeded", train=LEFT, release="Succeeded", push=end)
    settings = AKS.model_copy(update={"tuning_scratch": setting})
    seen = making.live(workflows=[made], jobs=jobs)
    said = decided(workspace, status(workspace, kind="tune", phase="Running"), seen, settings)
    gone = [action.job for action in said if isinstance(action, DeleteJob)]
    assert gone == ([] if kept else [job["metadata"]["name"] for job in jobs])


def test_another_intent_is_trained_whatever_lies_on_the_volume_of_the_one_before():
    workspace = making.tuning_only()
    before = status(workspace, "trained", kind="push", phase="Failed")
    edited = making.edited(workspace, tuning={**workspace["tuning"], "method": "lora"})
    after = observed(edited, before, settings=AKS)
    assert after.satisfied.trained == ""
    assert decided(edited, before, making.live()) == [Start(Parts(nodes=True, tune=True), failures=0)]


@pytest.mark.parametrize("seen", [True, False], ids=["edited afterwards", "edited before the failure was seen"])
def test_what_is_trained_follows_an_edit_of_the_place_that_refused_it(seen):
    workspace = making.tuning_only()
    refused = flow(workspace, phase="Failed", train=LEFT, release="Succeeded", push=("Failed", REFUSED))
    before = status(workspace, *([] if seen else ["trained"]), kind="tune")
    if seen:
        before = observed(workspace, before, settings=AKS, workflows=[refused])
    elsewhere = {**workspace["tuning"], "output": {**workspace["tuning"]["output"], "image": "team.azurecr.io/b:2"}}
    edited = making.edited(workspace, tuning=elsewhere, generation=2)
    assert decided(edited, before, making.live(workflows=[refused])) == PUSH
    pushed = making.workflow(edited, 1, kind="push", phase="Succeeded", push=PUSHED)
    known = status(edited, "trained", kind="push", generation=2)
    after = observed(edited, known, settings=AKS, workflows=[pushed])
    assert (after.satisfied.trained, after.satisfied.tune) == ("", satisfied(edited, "tune").tune)


def test_what_the_push_waits_for_is_told_and_the_figures_of_the_training_stay():
    workspace = making.tuning_only()
    made = flow(workspace, "push", push="Running")
    line = {"phase": "push", "percent": 95, "message": "has waited 3 min for its place: the registry does not answer"}
    job = making.job(workspace, role="push", progress=line)
    job["metadata"]["name"] = names.push_job(making.parsed(workspace), 1)
    before = status(workspace, "trained", kind="push", tuning=TuningStatus(loss=0.5, step=40))
    after = observed(workspace, before, settings=AKS, workflows=[made], jobs=[job])
    assert (after.step.name, after.step.percent, after.step.message) == ("push", 95, line["message"])
    assert (after.tuning.loss, after.tuning.step) == (0.5, 40)
