"""Which engine serves: by the annotation, the platform's image, and what each of them can."""

import datetime

import pytest

import presets
from kaito_hera import intent, refusals, runtimes
from kaito_hera.settings import Settings
from tests import making
from workflows.plan import plan

TODAY = datetime.date(2026, 6, 18)
WITH = Settings(vllm_image="registry.example/kaito-hera-serving-vllm:1")
WITHOUT = Settings()
FIELD = "metadata.annotations[kaito.sh/runtime]"


def serving(name, runtime=""):
    made = making.inference(annotations={"kaito.sh/runtime": runtime} if runtime else {})
    made["inference"]["preset"]["name"] = name
    return making.parsed(made)


def said(workspace, settings):
    found = refusals.findings(workspace, settings, TODAY)
    return [(str(one), one.fatal) for one in found if one.field == FIELD or "served by" in str(one)]


@pytest.mark.parametrize(
    ("asked", "settings", "served_by"),
    [
        ("", WITH, "transformers"),
        ("transformers", WITH, "transformers"),
        (" vLLM ", WITH, "vllm"),
        ("vllm", WITHOUT, "transformers"),
    ],
)
def test_the_annotation_chooses_where_there_is_an_image(asked, settings, served_by):
    assert runtimes.of(serving("phi-4", asked), settings) == served_by


def test_without_an_image_our_engine_serves_what_it_can_and_says_so():
    [(text, fatal)] = said(serving("phi-4", "vllm"), WITHOUT)
    assert "setting vllmImage" in text
    assert not fatal
    assert said(serving("phi-4", "vllm"), WITH) == []


def test_a_model_of_vllm_alone_names_the_annotation_and_then_the_image():
    name = "mistral-large-3-675b-instruct"
    [(text, fatal)] = said(serving(name), WITH)
    assert "annotate the Workspace with kaito.sh/runtime: vllm" in text
    assert fatal
    [(text, fatal)] = said(serving(name, "vllm"), WITHOUT)
    assert "there is no image with vLLM here" in text
    assert fatal
    assert said(serving(name, "vllm"), WITH) == []


def test_a_model_that_is_served_slowly_gets_the_hint():
    [(text, fatal)] = said(serving("gpt-oss-20b"), WITH)
    assert "answers one request of gpt-oss-20b at a time; write vllm" in text
    assert not fatal
    assert said(serving("gpt-oss-20b", "vllm"), WITH) == []


def test_a_model_that_vllm_does_not_serve_is_refused_under_it():
    only_ours = next(name for name, model in presets.presets().items() if "vllm" not in model.runtimes)
    [(text, fatal)] = said(serving(only_ours, "vllm"), WITH)
    assert f"{only_ours} is not served by vLLM; take the annotation out" in text
    assert fatal


def test_adapters_that_vllm_has_no_place_for_are_refused_under_it():
    made = making.inference(annotations={"kaito.sh/runtime": "vllm"})
    made["inference"] = {
        "preset": {"name": "falcon-7b"},
        "adapters": [{"source": {"name": "mine", "image": "a.io/x:1"}, "strength": "1.0"}],
    }
    [(text, fatal)] = said(making.parsed(made), WITH)
    assert "falcon-7b: vLLM serves it without adapters; take the annotation out" in text
    assert fatal
    assert said(serving("falcon-7b", "vllm"), WITH) == []


def test_where_nothing_of_ours_serves_the_annotation_has_no_effect():
    tuned = making.parsed(making.tuning(annotations={"kaito.sh/runtime": "vllm", "kaito.sh/serve": "false"}))
    assert said(tuned, WITH) == [(f"{FIELD}: has no effect: nothing is served", False)]
    own = making.inference(annotations={"kaito.sh/runtime": "vllm"})
    own["inference"] = {"template": {"spec": {"containers": []}}}
    [(text, fatal)] = said(making.parsed(own), WITH)
    assert "brings its own engine" in text
    assert not fatal


def test_another_engine_is_another_server_and_another_word():
    without, ours, vllm = (runtimes.heeded(serving("phi-4", name), WITH) for name in ("", "transformers", "vllm"))
    assert intent.of(without) == intent.of(ours) != intent.of(vllm)
    assert without.annotated == ours.annotated == "" != vllm.annotated


@pytest.mark.parametrize("runtime", ["vllm", "transformers", "other"])
def test_what_has_no_effect_is_no_edit_of_what_stood_before_it_could_have_one(runtime):
    """Earlier releases heeded no such annotation: at an upgrade nothing may start anew because of it."""
    asked = runtimes.heeded(serving("phi-4", runtime), WITHOUT)
    assert (intent.of(asked), asked.annotated) == (intent.of(serving("phi-4")), "")


def test_where_nothing_of_ours_serves_it_is_no_edit_either():
    given = {"kaito.sh/serve": "false"}
    plain, asked = (making.parsed(making.tuning(annotations=given | more)) for more in ({}, {FIELD[21:-1]: "vllm"}))
    assert asked.annotated != plain.annotated == runtimes.heeded(asked, WITH).annotated


@pytest.mark.parametrize(("settings", "same"), [(WITH, False), (WITHOUT, True)])
def test_a_workflow_is_made_for_what_has_an_effect(settings, same):
    first, second = (
        plan(serving("phi-4", runtime), settings, attempt=1, parts=intent.Parts(nodes=True, serve=True))
        for runtime in ("", "vllm")
    )
    assert (intent.made_for(first) == intent.made_for(second)) == same
