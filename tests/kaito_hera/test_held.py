import json

import pytest

from kaito_hera.decide import missing
from kaito_hera.settings import Settings
from kaito_hera.status import NodesStatus, Refusal, Status
from tests import making
from tests.kaito_hera import deciding
from tests.kaito_hera.observing import AKS, observed, recorded

A100, V100 = "Standard_NC24ads_A100_v4", "Standard_NC6s_v3"
SPOT = f"{A100}/spot"


def several(**resource):
    workspace = making.inference()
    del workspace["resource"]["instanceType"]
    workspace["resource"] |= {"instanceTypes": [A100, V100], "capacity": ["spot", "on-demand"], **resource}
    return workspace


def nodes_of(workspace, before=None, settings=AKS, **steps):
    flow = making.workflow(workspace, phase="Running", **steps)
    return observed(workspace, before or recorded(workspace), settings, workflows=[flow]).nodes


def launched(candidate, refused=()):
    told = json.dumps([{"candidate": c, "reason": why} for c, why in refused])
    return "Succeeded", "", {"candidate": candidate, "refused": told}


def test_what_was_refused_is_told_with_its_reason():
    found = nodes_of(several(), provision_nodes=launched(f"{A100}/on-demand", [(SPOT, "LowPriorityCores")]))
    assert (found.candidate, found.usd_per_hour) == (f"{A100}/on-demand", 3.673)
    assert found.refused == (Refusal(candidate=SPOT, reason="LowPriorityCores"),)


def test_the_price_of_spot_is_not_known():
    assert nodes_of(several(), provision_nodes=launched(SPOT)).usd_per_hour is None


@pytest.mark.parametrize("reason", ["ProvisioningFailed", "NodesNotReady"])
def test_a_kind_that_gives_no_nodes_is_held_for_an_hour(reason):
    failed = ("Failed", making.failed_message(reason, "0 of 1 nodes usable", retryable=True))
    workspace = several()
    before = recorded(workspace, nodes=NodesStatus(refused=(Refusal(candidate=SPOT, reason="earlier"),)))
    told = launched(SPOT, [(f"{V100}/spot", "quota")])
    [other, late] = nodes_of(workspace, before, provision_nodes=told, await_nodes=failed).refused
    assert other == Refusal(candidate=f"{V100}/spot", reason="quota")
    ended = making.ago(8)  # the step's
    assert (late.candidate, late.reason) == (SPOT, "0 of 1 nodes usable")
    assert late.held_until == f"{ended[:11]}04{ended[13:]}"


def test_a_kind_that_the_images_cannot_use_is_left_out_until_an_edit():
    failed = ("Failed", making.failed_message("UnsupportedNode", "node x has NVIDIA driver 535", retryable=True))
    workspace = several()
    flow = making.workflow(workspace, phase="Failed", provision_nodes=launched(SPOT), await_nodes=failed)
    after = observed(workspace, recorded(workspace), workflows=[flow])
    unfit = Refusal(candidate=SPOT, reason="node x has NVIDIA driver 535", unfit=True)
    assert after.nodes.refused == (unfit,)
    assert observed(workspace, after).nodes.refused == (unfit,), "also when the Workflow is gone"
    for edited in (making.edited(workspace, count=2), retried(workspace)):
        assert observed(edited, after, workflows=[flow]).nodes.refused == ()
        assert observed(edited, after).nodes.refused == ()


def retried(workspace):
    metadata = workspace["metadata"] | {"annotations": {"kaito.sh/retry": "again"}}
    return workspace | {"metadata": metadata}


@pytest.mark.parametrize("reason", ["Evicted", "NodeLost"])
def test_a_kind_that_was_taken_away_is_held_for_an_hour_too(reason):
    failed = ("Failed", making.failed_message(reason, "the node asked the pod to go", retryable=True))
    done = {"provision_nodes": launched(SPOT), "await_nodes": "Succeeded"}
    [late] = nodes_of(several(), **done, train=failed).refused
    assert (late.candidate, late.reason, bool(late.held_until)) == (SPOT, "the node asked the pod to go", True)
    failed = ("Failed", making.failed_message("Crashed", "exit code 1", retryable=True))
    assert nodes_of(several(), **done, train=failed).refused == ()


@pytest.mark.parametrize("reason", ["Superseded", "ClusterUnavailable"])
def test_what_is_not_the_kind_s_fault_is_not_held_against_it(reason):
    failed = ("Failed", making.failed_message(reason, "x", retryable=True))
    assert nodes_of(several(), provision_nodes=launched(SPOT), await_nodes=failed).refused == ()


def test_while_the_next_attempt_asks_the_earlier_reasons_stay():
    workspace = several()
    known = (Refusal(candidate=SPOT, reason="earlier", held_until=making.ago(-600)),)
    before = recorded(workspace, nodes=NodesStatus(refused=known))
    assert nodes_of(workspace, before, provision_nodes="Running").refused == known


def test_an_answer_that_cannot_be_read_changes_nothing():
    answer = ("Succeeded", "", {"candidate": SPOT, "refused": "{"})
    assert nodes_of(several(), provision_nodes=answer).refused == ()


def test_of_brought_nodes_the_kind_is_told_but_nothing_is_billed():
    workspace = several(capacity=[])
    found = nodes_of(workspace, settings=Settings(), provision_nodes=launched(V100, [(A100, "no node")]))
    assert (found.candidate, found.held, found.billed_since, found.usd_per_hour) == (V100, False, "", None)
    assert found.refused == (Refusal(candidate=A100, reason="no node"),)


@pytest.mark.parametrize("settings", [AKS, Settings()], ids=["aks", "byo"])
def test_a_finalizer_that_was_there_before_our_status_is_kaito_s(settings):
    workspace = making.inference()
    theirs = Status.of({"status": {"conditions": [], "workerNodes": ["n1"]}})
    found = observed(workspace, theirs, settings)
    assert found.nodes.inherited is True
    assert observed(workspace, found, settings).nodes.inherited is True
    assert observed(making.inference(finalizers=[]), Status(), settings).nodes is None
    assert observed(workspace, Status(observed_generation=1), settings).nodes is None


def ordered(workspace, before, candidate, age):
    """The nodes once an order for this has ended, that long ago."""
    flow = making.workflow(workspace, phase="Running", age=age + 1, provision_nodes=launched(candidate))
    return observed(workspace, recorded(workspace, nodes=before), workflows=[flow]).nodes


def released(workspace, before, age):
    flow = making.workflow(workspace, kind="release", phase="Succeeded", age=age + 1, release="Succeeded")
    return observed(workspace, recorded(workspace, nodes=before), workflows=[flow]).nodes


def test_hours_on_another_kind_of_node_keep_their_own_price():
    workspace = several(instanceTypes=[A100, V100], capacity=[])
    first = ordered(workspace, None, f"{A100}/on-demand", age=7200)
    second = ordered(workspace, first, f"{V100}/on-demand", age=3600)
    assert (second.billed_since, second.usd_per_hour) == (making.ago(3600), 3.06)
    assert (second.billed_seconds, second.priced_seconds, second.billed_usd) == (3600, 3600, 3.673)
    assert ordered(workspace, second, f"{V100}/on-demand", age=3600) == second, "the same look again"
    last = released(workspace, second, age=0)
    assert (last.held, last.billed_since) == (False, "")
    assert (last.billed_seconds, last.priced_seconds, last.billed_usd) == (7200, 7200, 6.733)


def test_hours_of_spot_have_no_price_though_later_ones_have():
    spot = ordered(several(), None, SPOT, age=7200)
    later = ordered(several(), spot, f"{A100}/on-demand", age=3600)
    assert (later.billed_seconds, later.priced_seconds, later.billed_usd) == (3600, 0, 0.0)
    assert (later.usd_per_hour, later.billed_since) == (3.673, making.ago(3600))


def test_more_nodes_cost_more_from_their_order_on_and_not_from_the_edit():
    workspace = making.inference()
    one = ordered(workspace, None, f"{A100}/on-demand", age=7200)
    two = making.edited(workspace, count=2)
    flow = making.workflow(workspace, phase="Succeeded", age=7201, provision_nodes=launched(f"{A100}/on-demand"))
    assert observed(two, recorded(workspace, nodes=one), workflows=[flow]).nodes == one
    both = ordered(two, one, f"{A100}/on-demand", age=3600)
    assert (both.usd_per_hour, both.billed_seconds, both.billed_usd) == (7.346, 3600, 3.673)


@pytest.mark.parametrize(
    ("resource", "nodes", "live", "size"),
    [
        ({"instanceType": "Standard_NC6s_v3"}, None, [], "Standard_NC6s_v3"),
        ({"instanceTypes": ["a", "b"]}, NodesStatus(candidate="b/spot"), [], "b"),
        ({"instanceTypes": ["a", "b"]}, None, [], ""),
        ({}, None, [making.node(size="L40"), making.node(size="A10"), making.node(size="L40")], "A10, L40"),
    ],
    ids=["asked for", "had", "not had yet", "brought"],
)
def test_the_size_that_is_used_is_told(resource, nodes, live, size):
    workspace = making.inference()
    workspace["resource"] = {"labelSelector": workspace["resource"]["labelSelector"], **resource}
    found = observed(workspace, Status(nodes=nodes), nodes=live)
    assert found.instance_type == size
    assert observed(workspace, found).instance_type == size, "while no node is seen"


@pytest.mark.parametrize(("reason", "anew"), [("Evicted", True), ("NodeLost", True), ("RegistryUnavailable", False)])
def test_nodes_that_were_taken_away_are_asked_for_anew_though_they_seem_to_stand(reason, anew):
    workspace = making.tuning()
    message = making.failed_message(reason, "x", retryable=True)
    failed = making.workflow(workspace, kind="tune", phase="Failed", train=("Failed", message))
    seen = making.live(workflows=[failed], nodes=[making.node(workspace)])
    before = deciding.status(workspace, "nodes", kind="tune")
    assert missing(making.parsed(workspace), before, seen).nodes is anew
