"""Which commit or digest a model is, kept in status where no preset pins it."""

import pytest

from kaito_hera import status
from kaito_hera.observe import observe
from kaito_hera.settings import Settings
from tests import making

COMMIT, OTHER = "0" * 40, "1" * 40
PRESET = {"name": "acme/tiny"}


def serving(**options):
    return making.edited(making.inference(), generation=1, inference={"preset": {**PRESET, **options}})


def observed(workspace, before=None, *, made_for=None, preflight="Succeeded", pinned=COMMIT):
    outputs = {"pinned": pinned} if pinned else {}
    workflow = making.workflow(made_for or workspace, preflight=(preflight, "", outputs))
    started = status.WorkflowStatus(name=workflow["metadata"]["name"], kind="serve", attempt=1, generation=1)
    was = status.Status(workflow=started, model=before)
    return observe(making.parsed(workspace), was, making.live(workflows=[workflow]), Settings()).model


def test_what_preflight_found_is_kept():
    found = observed(serving())
    assert found == status.ModelStatus(source="acme/tiny", revision=COMMIT)
    assert observed(serving(), found, preflight="Running", pinned="") == found, "while the next attempt looks"


def test_an_image_is_its_own_source():
    assert observed(serving(presetOptions={"image": "reg.io/a:1"})).source == "reg.io/a:1"


def test_another_source_is_looked_at_anew():
    before = status.ModelStatus(source="acme/tiny", revision=OTHER)
    assert observed(serving(presetOptions={"image": "reg.io/a:1"}), before, preflight="Running", pinned="") is None


@pytest.mark.parametrize("preflight", ["Failed", "Running"])
def test_only_a_preflight_that_passed_counts(preflight):
    assert observed(serving(), preflight=preflight) is None


def test_the_word_of_an_attempt_for_something_else_is_not_taken():
    wider = {**serving(), "resource": {**making.inference()["resource"], "count": 2}}
    assert observed(serving(), made_for=wider) is None


def test_a_preset_needs_no_note():
    assert observed(making.inference(), pinned="") is None
