"""How the weights of a server come, in status and for people."""

import pytest

from kaito_hera import cluster as clusters
from kaito_hera import names, show, watched
from tests import making
from tests.kaito_hera.observing import observed, recorded

HALF = "fetching weights: 3.1 of 7.1 GiB, 205.0 MiB/s, 20 s left"
MORE = "fetching weights: 5.1 of 7.1 GiB, 205.0 MiB/s, 10 s left"
COUNT = "0 of 1 replicas answer /health"


def starting(said, *, step="Running", phase="Running"):
    """The status while a roll-out's server says this."""
    workspace = making.inference()
    server = making.deployment(workspace, ready=0)
    server["metadata"] |= {"annotations": {names.PROGRESS: said, "other": "x"}}
    server = watched.made(clusters.DEPLOYMENT, "kaito-hera").trim(server)
    flow = making.workflow(workspace, phase=phase, await_nodes="Succeeded", roll_out=step)
    objects = {"workflows": [flow], "nodes": [making.node(workspace)], "deployments": [server]}
    return observed(workspace, recorded(workspace), **objects)


def shown(status):
    return show.lines({**making.inference(), "status": status.dump()}, making.NOW)


def test_the_step_and_the_condition_tell_how_far_they_are():
    status = starting(HALF)
    assert (status.step.name, status.step.message) == ("roll-out", HALF)
    assert status.condition("InferenceReady").message == f"{COUNT}; {HALF}"


@pytest.mark.parametrize("text", ["", "x" * 9999, "\x1b[2J", '{"phase": "train"}', "fetching weights: all of it"])
def test_an_annotation_that_somebody_has_edited_says_nothing(text):
    status = starting(text)
    assert (status.step.message, status.condition("InferenceReady").message) == ("", COUNT)


def test_what_a_roll_out_left_that_has_ended_says_nothing():
    status = starting(HALF, step="Failed", phase="Failed")
    assert HALF not in status.model_dump_json()


def test_people_see_it_once():
    text = "\n".join(line.text for line in shown(starting(HALF)))
    assert f"InferenceReady      WorkspaceInferenceStatusPending: {COUNT}\n" in text
    assert f"  {HALF}\n" in text
    assert text.count(HALF) == 1


def test_that_more_has_come_is_no_news():
    half, more = (shown(starting(said)) for said in (HALF, MORE))
    assert more != half
    assert show.news(more, half) == []
    assert show.news(half, shown(starting("")))
