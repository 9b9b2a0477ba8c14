"""A Workspace of which nothing can be made: what is wrong with it, and what is true of it all the same."""

import pydantic
import pytest

from kaito_hera import invalid, show
from kaito_hera.api import Workspace
from kaito_hera.status import Condition, Status
from tests import making
from tests.kaito_hera.observing import recorded

WHY = "metadata.name: too long"


def told(workspace):
    with pytest.raises(pydantic.ValidationError) as raised:
        Workspace.parse(workspace)
    return invalid.words(raised.value)


def observed(before, **objects):
    return invalid.observe({**making.inference(), "status": before.dump()}, making.live(**objects), WHY)


def said(status):
    return {c.type: (c.status, c.reason) for c in status.conditions}


def test_each_wrong_field_is_named_with_the_value_seen_and_a_way_out():
    workspace = making.edited(making.inference(), count=0)
    workspace["resource"]["zone"] = "a"
    assert told(workspace).split("; ") == [
        "resource.count: Input should be greater than or equal to 1 (seen: '0')",
        "resource.zone: this version of kaito-hera has no such field: take it out, or install the version that has",
    ]


def test_a_rule_speaks_for_itself():
    one = making.edited(making.inference(), inference={"preset": {"name": "phi-4"}, "template": {}})
    assert told(one).startswith("inference: give preset (a model) or template")
    other = making.edited(making.tuning(), inference={"preset": {"name": "phi-4"}})
    assert told(other).startswith("inference.preset.name: must be tuning.preset.name")


def test_a_refused_workspace_is_not_ready_and_nothing_goes_on():
    found = observed(recorded(making.inference()))
    assert said(found) == {
        "WorkspaceReady": ("False", "InvalidWorkspace"),
        "Reconciling": ("False", "Settled"),
        "Stalled": ("True", "InvalidWorkspace"),
        "Ready": ("False", "InvalidWorkspace"),
    }
    assert found.condition("Ready").message == f"{WHY}; it is left as it is until it is edited, or deleted"
    text = show.render({**making.inference(), "status": found.dump()}, making.NOW)
    assert f"✘ WorkspaceReady      InvalidWorkspace: {WHY}" in text
    assert observed(found) == found, "so that nothing is written while nothing changes"


@pytest.mark.parametrize(("ready", "verdict"), [(1, "True"), (0, "False")])
def test_it_is_ready_for_as_long_as_its_server_answers(ready, verdict):
    server = making.deployment(making.inference(), ready=ready)
    found = observed(recorded(making.inference()), deployments=[server])
    assert {
        name: found.condition(name).status for name in ("InferenceReady", "WorkspaceReady", "Ready")
    } == dict.fromkeys(("InferenceReady", "WorkspaceReady", "Ready"), verdict)
    assert found.is_true("Stalled")


def test_what_kaito_said_of_its_own_server_stays():
    theirs = Condition(
        type="WorkspaceReady",
        status="True",
        reason="workspaceReady",
        last_transition_time=making.ago(9),
        observed_generation=1,
    )
    found = observed(Status(conditions=(theirs,)))
    assert found.conditions[0] == theirs
    assert said(found)["Ready"] == ("False", "InvalidWorkspace")
    assert found.observed_generation == 0, "or KAITO's nodes are forgotten once it is edited"
