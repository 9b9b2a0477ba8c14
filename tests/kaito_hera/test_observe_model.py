"""Which commits model and data are, kept in status where nobody pins them."""

import json

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


SET, FILE = "https://huggingface.co/datasets/a/b", "https://example.com/data.parquet"


def tuning(urls=(SET, FILE), **edited):
    made = making.edited(making.tuning(), generation=1)
    made["tuning"] |= {"input": {"urls": list(urls)}, **edited}
    return made


def data(workspace, before=None, *, made_for=None, preflight="Succeeded", commits=("", COMMIT)):
    workflow = making.workflow(made_for or workspace, preflight=(preflight, "", {"commits": json.dumps(commits)}))
    started = status.WorkflowStatus(name=workflow["metadata"]["name"], kind="tune", attempt=1, generation=1)
    was = status.Status(workflow=started, data=before)
    return observe(making.parsed(workspace), was, making.live(workflows=[workflow]), Settings()).data


def test_the_commit_of_a_data_set_is_kept_for_as_long_as_the_same_tuning_is_asked_for():
    found = data(tuning())
    assert found.sets == (status.DataSet(source=SET, revision=COMMIT),), "addresses in alphabetical order"
    assert data(tuning(), found, preflight="Running") == found
    assert data(tuning((FILE, SET)), found, preflight="Running") == found, "their order means nothing"
    moved = {**tuning(), "resource": {**making.tuning()["resource"], "instanceType": "Standard_NC4as_T4_v3"}}
    assert data(moved, made_for=tuning()) == found
    assert data(tuning(method="lora"), found, made_for=tuning()) is None
    assert data(making.inference(), found, commits=()) is None


@pytest.mark.parametrize("commits", [(), ("",), ("", "main"), ("", "{{x}}"), "no list"])
def test_what_is_no_commit_is_not_kept(commits):
    assert data(tuning(), commits=commits) is None


def test_a_preset_needs_no_note():
    assert observed(making.inference(), pinned="") is None
