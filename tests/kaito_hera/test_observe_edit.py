"""An edit of what is served: what answers stays Ready, of the generation that asked for it, until the edit is there."""

import pytest

from tests import making
from tests.kaito_hera.observing import observed, recorded, said

TRUE = ("PreflightSucceeded", "NodeClaimReady", "ResourceReady", "InferenceReady")
SUMMARIES = ("WorkspaceSucceeded", "WorkspaceReady", "Ready")
DONE = {"preflight": "Succeeded", "provision_nodes": "Succeeded", "await_nodes": "Succeeded", "roll_out": "Succeeded"}


def adapter(name, strength="1.0"):
    return {"source": {"name": name, "image": f"team.azurecr.io/{name}:1"}, "strength": strength}


def with_adapters(*adapters, generation=1):
    inference = {**making.inference()["inference"], "adapters": list(adapters)}
    return making.edited(making.inference(), generation=generation, inference=inference)


FIRST = with_adapters(adapter("a"))
OBJECTS = {"nodes": [making.node(FIRST)], "deployments": [making.deployment(FIRST)]}


def served():
    """The status of FIRST, which is served."""
    return observed(FIRST, recorded(FIRST), workflows=[making.workflow(FIRST, phase="Succeeded", **DONE)], **OBJECTS)


def attempt(before, workspace, *, phase="Running", number=2, objects=OBJECTS, **steps):
    """The status once the next attempt looks like this."""
    flow = making.workflow(workspace, number, phase=phase, **steps)
    current = recorded(workspace, number).workflow
    current = current.model_copy(update={"generation": workspace["metadata"]["generation"]})
    return observed(workspace, before.model_copy(update={"workflow": current}), workflows=[flow], **objects)


def generations(status, *names):
    return {status.condition(name).observed_generation for name in names}


def server(workspace, *, ready, replicas, nodes):
    return {
        "deployments": [making.deployment(workspace, ready=ready, replicas=replicas)],
        "nodes": [making.node(workspace, name=f"n{number}", ready=state) for number, state in enumerate(nodes)],
    }


def test_an_edit_is_true_of_the_generation_before_until_it_is_rolled_out():
    after, status = with_adapters(adapter("a", "0.5"), generation=2), served()
    assert generations(status, *TRUE, *SUMMARIES) == {1}
    old = making.workflow(FIRST, phase="Succeeded", **DONE)
    seen = [status := observed(after, status, workflows=[old], **OBJECTS)]
    stages = ({}, {"preflight": "Running"}, {"preflight": "Succeeded", "roll_out": "Running"})
    seen += [status := attempt(status, after, **steps) for steps in stages]
    for status in seen:
        assert all(status.is_true(name) for name in (*TRUE, *SUMMARIES, "Reconciling"))
        assert status.state == "Ready"
        assert (status.observed_generation, generations(status, *SUMMARIES, "InferenceReady")) == (2, {1})
    assert [generations(status, "PreflightSucceeded") for status in seen] == [{1}, {1}, {1}, {2}]
    last = seen[-1].condition("WorkspaceReady").message
    assert last == "generation 1 is served, generation 2 not yet: step roll-out"
    done = attempt(seen[-1], after, phase="Succeeded", preflight="Succeeded", roll_out="Succeeded")
    assert generations(done, *TRUE, *SUMMARIES) == {2}
    assert (done.condition("WorkspaceReady").message, done.is_true("Reconciling")) == ("", False)


def test_a_second_node_takes_nothing_from_the_first():
    after, status = making.edited(FIRST, count=2), served()
    one, joining, two = ([True], [True, False], [True, True])
    for nodes, replicas, steps in (
        (one, 1, {"preflight": "Running"}),
        (one, 1, {"preflight": "Succeeded", "provision_nodes": "Running"}),
        (joining, 1, {"preflight": "Succeeded", "provision_nodes": "Succeeded", "await_nodes": "Running"}),
        (two, 2, {**DONE, "roll_out": "Running"}),
    ):
        objects = server(after, ready=1, replicas=replicas, nodes=nodes)
        status = attempt(status, after, objects=objects, **steps)
        assert [name for name in (*TRUE, *SUMMARIES) if not status.is_true(name)] == [], steps
        assert (status.state, generations(status, *SUMMARIES, "InferenceReady")) == ("Ready", {1})
    assert status.condition("InferenceReady").message == "1 of 2 replicas answer /health"
    done = attempt(status, after, phase="Succeeded", objects=server(after, ready=2, replicas=2, nodes=two), **DONE)
    assert (done.state, generations(done, *TRUE, *SUMMARIES)) == ("Ready", {2})


def test_a_refused_edit_is_told_by_what_refused_it_and_what_answers_goes_on():
    after = with_adapters(adapter("a"), adapter("b"), generation=2)
    message = making.failed_message("AdapterNotFound", "inference.adapters[1]: no such image", retryable=False)
    status = attempt(served(), after, phase="Failed", preflight=("Failed", message))
    assert said(status)["Stalled"] == ("True", "AdapterNotFound")
    assert said(status)["PreflightSucceeded"] == ("False", "AdapterNotFound")
    assert (status.state, status.is_true("Ready"), generations(status, "Ready")) == ("Ready", True, {1})
    assert generations(status, "Stalled", "PreflightSucceeded") == {2}
    assert "generation 2 not yet: AdapterNotFound" in status.condition("WorkspaceReady").message
    objects = {**OBJECTS, "deployments": [making.deployment(after, ready=0)]}
    down = attempt(status, after, phase="Failed", preflight=("Failed", message), objects=objects)
    assert (down.state, down.is_true("Ready")) == ("NotReady", False)
    up = attempt(down, after, phase="Failed", preflight=("Failed", message))
    assert (up.state, generations(up, "Ready", "InferenceReady")) == ("Ready", {1})


def test_what_does_not_answer_is_not_ready_whatever_is_under_way():
    after = with_adapters(adapter("c"), generation=2)
    objects = {**OBJECTS, "deployments": [making.deployment(after, ready=0)]}
    status = attempt(served(), after, objects=objects, **{**DONE, "roll_out": "Running"})
    assert [status.is_true(name) for name in ("InferenceReady", *SUMMARIES)] == [False] * 4
    assert (status.state, generations(status, *SUMMARIES, "InferenceReady")) == ("NotReady", {2})


def test_between_roll_outs_every_replica_is_to_answer():
    after = making.edited(FIRST, count=2)
    objects = server(after, ready=1, replicas=2, nodes=[True, True])
    rolling = attempt(served(), after, objects=objects, **{**DONE, "roll_out": "Running"})
    message = making.failed_message("ServerNotReady", "not in time", retryable=True)
    failed = attempt(rolling, after, phase="Failed", objects=objects, **{**DONE, "roll_out": ("Failed", message)})
    assert said(failed)["InferenceReady"] == ("False", "ServerNotReady")
    assert not failed.is_true("WorkspaceReady")


def test_a_node_that_is_lost_during_an_update_is_told():
    objects = server(FIRST, ready=1, replicas=1, nodes=[False])
    status = attempt(served(), making.edited(FIRST, count=2), objects=objects, preflight="Running")
    assert said(status)["ResourceReady"] == ("False", "workspaceResourceStatusNotReady")


def test_a_server_that_was_never_rolled_out_is_not_ready_before_it_is():
    rolling = making.workflow(FIRST, **{**DONE, "roll_out": "Running"})
    status = observed(FIRST, recorded(FIRST), workflows=[rolling], **OBJECTS)
    assert status.is_true("InferenceReady")
    assert not status.is_true("WorkspaceReady")
    assert (status.state, status.serving) == ("Pending", None)


def test_what_failed_before_the_edit_is_no_word_about_it():
    message = making.failed_message("UnknownPreset", "no gpt-9", retryable=False)
    failed = making.workflow(FIRST, phase="Failed", preflight=("Failed", message))
    before = observed(FIRST, recorded(FIRST), workflows=[failed])
    status = attempt(before, with_adapters(generation=2), objects={}, preflight="Running")
    assert said(status)["PreflightSucceeded"] == ("False", "UnknownPreset")
    assert (generations(status, "PreflightSucceeded"), generations(status, "Ready")) == ({1}, {2})


def test_a_repair_does_not_forget_that_its_workspace_was_checked():
    message = making.failed_message("ProvisioningFailed", "no quota", retryable=True)
    steps = {"preflight": "Succeeded", "provision_nodes": ("Failed", message)}
    before = observed(FIRST, recorded(FIRST), workflows=[making.workflow(FIRST, phase="Failed", **steps)])
    status = attempt(before, FIRST, objects={})
    assert said(status)["PreflightSucceeded"] == ("True", "PreflightSucceeded")
    assert said(status)["NodeClaimReady"] == ("False", "ProvisioningFailed")


@pytest.mark.parametrize(
    ("edit", "step", "kept"),
    [
        ((adapter("a", "0.5"), adapter("b")), "preflight", [("a", "1.0")]),
        ((adapter("a", "0.5"), adapter("b")), "roll_out", [("a", "1.0")]),
        ((adapter("b"),), "preflight", [("a", "1.0")]),
        ((adapter("b"),), "roll_out", []),
    ],
    ids=["asked for", "being loaded", "to be taken out", "taken out"],
)
def test_adapters_are_served_once_they_were_rolled_out(edit, step, kept):
    assert [one.source for one in served().serving.adapters] == ["team.azurecr.io/a:1"]
    after = with_adapters(*edit, generation=2)
    status = attempt(served(), after, **{step: "Running"})
    assert (status.serving.generation, [(one.name, one.strength) for one in status.serving.adapters]) == (1, kept)
    done = attempt(status, after, phase="Succeeded", **DONE)
    assert [one.name for one in done.serving.adapters] == [one["source"]["name"] for one in edit]
    assert done.serving.generation == 2


def test_what_was_rolled_out_unseen_and_edited_since_is_of_its_generation():
    second, third = (with_adapters(adapter(name), generation=at) for at, name in ((2, "b"), (3, "c")))
    rolling = attempt(served(), second, roll_out="Running")
    ended = making.workflow(second, 2, phase="Succeeded", **DONE)
    status = observed(third, rolling, workflows=[ended], **OBJECTS)
    assert (status.serving.generation, status.serving.adapters) == (2, ())
    assert (status.is_true("Ready"), generations(status, "Ready")) == (True, {2})
