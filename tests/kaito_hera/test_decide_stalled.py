"""What is done for a Workspace that cannot go on: its nodes go back, unless somebody is served there."""

import pytest

from kaito_hera.decide import LookAgain, Start, decide
from kaito_hera.intent import Parts
from kaito_hera.observe import observe
from kaito_hera.status import Condition, NodesStatus
from tests import making
from tests.kaito_hera.deciding import AKS, decided, status


def test_a_terminal_failure_before_any_node_was_asked_for_ends_it():
    workspace = making.inference()
    message = making.failed_message("UnknownPreset", "no such preset", retryable=False)
    failed = making.workflow(workspace, phase="Failed", preflight=("Failed", message), age=1000)
    assert decided(workspace, status(workspace), making.live(workflows=[failed])) == []


def test_a_terminal_failure_leaves_the_server_that_kaito_made_alone():
    workspace = making.inference()
    message = making.failed_message("Forbidden", "quota", retryable=False)
    failed = making.workflow(workspace, phase="Failed", provision_nodes="Succeeded", await_nodes=("Failed", message))
    theirs = NodesStatus(inherited=True)
    assert decided(workspace, status(workspace, nodes=theirs), making.live(workflows=[failed])) == []


def test_what_was_taken_over_and_cannot_go_on_keeps_no_nodes():
    workspace = making.inference()
    message = making.failed_message("PodsRefused", "the namespace is restricted", retryable=False)
    failed = making.workflow(workspace, phase="Failed", await_nodes="Succeeded", roll_out=("Failed", message))
    taken = status(workspace, nodes=NodesStatus(inherited=True, held=True))
    assert decided(workspace, taken, making.live(workflows=[failed])) == [Start(Parts(), failures=0)]


def test_a_terminal_failure_gives_nodes_back_that_serve_nobody():
    workspace = making.tuning()
    message = making.failed_message("BadData", "every row is empty", retryable=False)
    failed = making.workflow(
        workspace, kind="tune", phase="Failed", provision_nodes="Succeeded", train=("Failed", message)
    )
    seen = making.live(workflows=[failed], nodes=[making.node(workspace)])
    before = status(workspace, "nodes", kind="tune")
    assert decided(workspace, before, seen) == [Start(Parts(), failures=0)]


def test_a_terminal_failure_leaves_a_server_alone_that_answers():
    workspace = making.inference()
    message = making.failed_message("AdapterNotFound", "no such image", retryable=False)
    failed = making.workflow(workspace, attempt=2, phase="Failed", preflight=("Failed", message))
    seen = making.live(workflows=[failed], nodes=[making.node(workspace)], deployments=[making.deployment(workspace)])
    before = status(workspace, "nodes", attempt=2, nodes=NodesStatus(held=True))
    assert decided(workspace, before, seen) == []


@pytest.mark.parametrize(("ready", "wanted", "since", "expected"), [
    (0, 1, 60, [LookAgain(2340)]),
    (1, 2, 9000, [LookAgain(2400)]),
    (0, 1, 2500, [Start(Parts(), failures=0)]),
])  # fmt: skip
def test_a_refused_edit_takes_no_server_away_that_is_down_for_a_while(ready, wanted, since, expected):
    workspace = making.inference()
    message = making.failed_message("AdapterNotFound", "no such image", retryable=False)
    failed = making.workflow(workspace, attempt=2, phase="Failed", preflight=("Failed", message))
    deployment = making.deployment(workspace, ready=ready, replicas=wanted)
    seen = making.live(workflows=[failed], nodes=[making.node(workspace)], deployments=[deployment])
    since = making.ago(since)
    down = Condition(
        type="InferenceReady", status="False", reason="x", last_transition_time=since, observed_generation=1
    )
    before = status(workspace, "nodes", "serve", attempt=2, nodes=NodesStatus(held=True), conditions=(down,))
    assert decided(workspace, before, seen) == expected


def test_after_giving_back_a_stalled_workspace_rests_until_it_is_edited():
    workspace = making.tuning()
    message = making.failed_message("BadData", "every row is empty", retryable=False)
    failed = making.workflow(
        workspace, kind="tune", phase="Failed", provision_nodes="Succeeded", train=("Failed", message)
    )
    w = making.parsed(workspace)
    before = status(workspace, "nodes", kind="tune")
    stalled = observe(w, before, making.live(workflows=[failed], nodes=[making.node(workspace)]), AKS)
    assert stalled.is_true("Stalled")
    giving = status(workspace, attempt=2, kind="release", conditions=stalled.conditions, nodes=stalled.nodes)
    released = making.workflow(workspace, attempt=2, kind="release", phase="Succeeded", release="Succeeded")
    after = observe(w, giving, making.live(workflows=[released]), AKS)
    assert after.is_true("Stalled")
    assert decide(w, after, making.live(workflows=[released]), AKS) == []
    again = making.edited(workspace, tuning={**workspace["tuning"], "method": "lora"})
    assert decided(again, after, making.live(workflows=[released])) == [
        Start(Parts(nodes=True, tune=True, serve=True), failures=0)
    ]
