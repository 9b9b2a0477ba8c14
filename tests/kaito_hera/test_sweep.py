"""What is decided about the nodes of a Workspace whose finalizer somebody took away."""

import datetime

import pytest

from kaito_hera import names
from kaito_hera.actions import DeleteWorkflow, LookAgain
from kaito_hera.sweep import Release, decide
from tests import making

GONE = making.inference()


def minutes(count):
    return making.NOW - datetime.timedelta(minutes=count)


def left(*workflows, nodes=1):
    return making.live(workflows=workflows, nodes=[making.node(GONE)] * nodes)


def release(phase, *, attempt=1, ended=0):
    flow = making.workflow(GONE, attempt, kind="release", phase=phase)
    if ended:
        flow["status"]["finishedAt"] = making.ago(60 * ended)
    return flow


def deleted(flow):
    return DeleteWorkflow(flow["metadata"]["name"])


def test_nodes_are_given_back_once_their_workspace_was_gone_for_a_while():
    assert decide(left(), minutes(0)) == [LookAgain(600)]
    assert decide(left(), minutes(9)) == [LookAgain(60)]
    assert decide(left(), minutes(10)) == [Release(attempt=1)]


@pytest.mark.parametrize("phase", ["", "Running"])
@pytest.mark.parametrize("nodes", [0, 1])
def test_a_release_that_runs_may_end(phase, nodes):
    assert decide(left(release(phase), nodes=nodes), minutes(60)) == []


def test_what_else_ran_for_it_goes_at_once():
    flow = making.workflow(GONE, kind="serve", phase="Running")
    assert decide(left(flow, nodes=0), minutes(0)) == [deleted(flow)]
    assert decide(left(flow), minutes(0)) == [deleted(flow), LookAgain(600)]


@pytest.mark.parametrize("phase", ["Succeeded", "Failed", "Error"])
def test_with_the_nodes_the_release_goes_and_while_they_stay_another_follows_under_a_new_name(phase):
    first = release(phase, attempt=6, ended=29)
    assert decide(left(first, nodes=0), minutes(60)) == [deleted(first)]
    assert decide(left(first), minutes(60)) == [LookAgain(60)]
    first = release(phase, attempt=6, ended=30)
    assert decide(left(first), minutes(60)) == [Release(attempt=7), deleted(first)]


def test_a_label_that_says_nothing_counts_as_no_attempt():
    odd = release("Failed", ended=31)
    odd["metadata"]["labels"][names.ATTEMPT] = "first"
    assert decide(left(odd), minutes(60)) == [Release(attempt=1), deleted(odd)]
