"""Waiting for a server, against a real API server; the test plays Deployment controller, kubelet and server."""

# ruff: noqa: F811 - fixtures are imported and then asked for by name
import json
import time

import pytest

from kaito_hera import cluster as clusters
from kaito_hera import errors
from tests.apiserver.conftest import until
from tests.apiserver.rolled import pending, rolled, served  # noqa: F401

WORD = {"reason": "DoesNotFit", "message": "the model needs 20 GiB, the GPU has 16", "retryable": False}


def test_it_returns_once_every_replica_answers_with_its_adapters(rolled, served, capsys):
    served.load("loading")
    waiting = rolled.wait()
    pending(waiting, capsys, "the Deployment is not looked at yet")
    rolled.settle(ready=0, updated=0, replicas=0)
    pending(waiting, capsys, "0 of 1 replicas are up to date")
    rolled.pod()
    rolled.settle(ready=0)
    pending(waiting, capsys, "0 of 1 replicas answer /health; pod p: adapter style: loading")
    rolled.settle()
    pending(waiting, capsys, "pod p: adapter style: loading")
    served.load("loaded")
    assert waiting.result(timeout=10) is None


def test_a_replica_of_the_old_kind_is_waited_out(rolled, served, capsys):
    served.load("loaded")
    rolled.pod()
    rolled.settle(ready=2, replicas=2, updated=1)
    waiting = rolled.wait()
    pending(waiting, capsys, "1 of 1 replicas are up to date")
    rolled.settle()
    waiting.result(timeout=10)


def test_an_adapter_that_is_not_the_wanted_one_is_waited_for(rolled, served, capsys):
    served.load("loaded", strength=1.0)
    rolled.pod()
    rolled.settle()
    waiting = rolled.wait()
    pending(waiting, capsys, "pod p: adapter style: the server has not read this change yet")
    served.load("loaded")
    waiting.result(timeout=10)


def test_the_kubelet_is_nudged_to_look_at_the_adapters(rolled, served, capsys):
    rolled.pod()
    waiting = rolled.wait()
    until(lambda: annotation(rolled), what="a touched pod")
    served.load("loaded")
    rolled.settle()
    waiting.result(timeout=10)
    version = rolled.cluster.get(clusters.POD, "p", rolled.namespace)["metadata"]["resourceVersion"]
    rolled.wait().result(timeout=10)
    after = rolled.cluster.get(clusters.POD, "p", rolled.namespace)
    assert after["metadata"]["resourceVersion"] == version, "once for each change of the adapters"


def annotation(rolled):
    found = rolled.cluster.get(clusters.POD, "p", rolled.namespace)
    return found["metadata"].get("annotations", {}).get("kaito.sh/hot-config-hash")


def test_an_adapter_that_failed_is_told_at_the_timeout(rolled, served):
    served.load("failed", reason="the registry does not answer")
    rolled.pod()
    rolled.settle(ready=0)
    error = rolled.wait(timeout=1).exception(timeout=10)
    assert isinstance(error, errors.ServerNotReadyError)
    assert "0 of 1 replicas answer /health; pod p: adapter style: failed: the registry does not answer" in str(error)


def test_replicas_that_are_replaced_one_after_another_have_their_time_each(rolled, served):
    served.load("loaded")
    rolled.pod()
    rolled.settle(ready=3, updated=0, replicas=3)
    waiting = rolled.wait(timeout=6)
    for updated in (1, 2, 3):
        time.sleep(2.5)
        rolled.settle(ready=3, updated=updated, replicas=4)
    error = waiting.exception(timeout=30)
    assert "3 of 1 replicas are up to date" in str(error), "it ends when nothing gets on"


def test_an_adapter_that_can_never_work_ends_the_wait_at_once(rolled, served, capsys):
    served.load("loading")
    rolled.pod()
    rolled.settle(ready=0)
    waiting = rolled.wait()
    pending(waiting, capsys, "0 of 1 replicas answer /health; pod p: adapter style: loading")
    served.load("failed", reason="it was made for another base model", retryable=False, failures=1)
    error = waiting.exception(timeout=10)
    assert (error.reason, error.retryable) == ("AdapterRefused", False)
    assert str(error) == (
        "inference.adapters[0].source.image: adapter style of team.azurecr.io/style:1 cannot be served: it was made "
        "for another base model; name an image with a LoRA adapter for phi-3-mini-4k-instruct, or take the adapter out"
    )


def test_what_was_refused_before_the_roll_out_is_waited_for_until_it_is_refused_again(rolled, served, capsys):
    served.load("failed", reason="use_dora True", retryable=False, failures=3)
    rolled.pod()
    rolled.settle()
    waiting = rolled.wait()
    pending(waiting, capsys, "pod p: adapter style: failed: use_dora True")
    served.load("failed", reason="use_dora True", retryable=False, failures=4)
    assert waiting.exception(timeout=10).reason == "AdapterRefused"


def test_what_a_pod_of_another_model_refuses_is_told_and_waited_out(rolled, served, capsys):
    served.load("loading")
    rolled.pod(**{"kaito.sh/config-hash": "of-the-model-before"})
    rolled.settle(updated=0)
    waiting = rolled.wait()
    pending(waiting, capsys, "0 of 1 replicas are up to date; pod p: adapter style: loading")
    served.load("failed", reason="another base", retryable=False, failures=1)
    pending(waiting, capsys, "pod p: adapter style: failed: another base")
    served.load("loaded")
    rolled.settle()
    waiting.result(timeout=10)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        pytest.param(503, {"error": "starting"}, id="unavailable"),
        pytest.param(200, b"<html>", id="no-json"),
        pytest.param(200, {"adapters": "x"}, id="nonsense"),
    ],
)
def test_an_answer_that_is_none_is_waited_out(rolled, served, capsys, status, body):
    served.status, served.body = status, body
    rolled.pod()
    rolled.settle()
    waiting = rolled.wait()
    pending(waiting, capsys, "pod p: answers nonsense on /v1/models: ")
    served.status = 200
    served.load("loaded")
    waiting.result(timeout=10)


@pytest.mark.parametrize("state", ["state", "lastState"])
def test_a_server_that_says_it_never_will_work_ends_the_wait_at_once(rolled, state, capsys):
    rolled.pod()
    rolled.settle(ready=0)
    waiting = rolled.wait()
    pending(waiting, capsys, "0 of 1 replicas answer /health")
    rolled.crash(json.dumps(WORD), state=state)
    error = waiting.exception(timeout=10)
    assert (error.reason, str(error), error.retryable) == ("DoesNotFit", WORD["message"], False)


@pytest.mark.parametrize(
    "word", [json.dumps({**WORD, "retryable": True}), "Killed", "[1]", ""], ids=["retryable", "text", "list", "nothing"]
)
def test_a_server_that_may_work_another_time_is_waited_for(rolled, served, capsys, word):
    rolled.pod()
    rolled.settle(ready=0)
    waiting = rolled.wait()
    pending(waiting, capsys, "0 of 1 replicas answer /health")
    rolled.crash(word, state="lastState")
    served.load("loaded")
    rolled.settle()
    waiting.result(timeout=10)


def test_what_was_said_before_the_roll_out_is_about_what_it_replaces(rolled, served, capsys):
    rolled.pod("old")
    rolled.crash(json.dumps(WORD), name="old")
    rolled.settle(ready=0)
    waiting = rolled.wait()
    pending(waiting, capsys, "0 of 1 replicas answer /health")
    rolled.cluster.delete(clusters.POD, "old", rolled.namespace)
    rolled.pod("new")
    served.load("loaded")
    rolled.settle()
    waiting.result(timeout=10)


def test_what_is_said_again_counts(rolled, capsys):
    rolled.pod()
    rolled.crash(json.dumps(WORD))
    rolled.settle(ready=0)
    waiting = rolled.wait()
    pending(waiting, capsys, "0 of 1 replicas answer /health")
    rolled.crash(json.dumps(WORD), at="2026-01-01T00:05:00Z")
    assert waiting.exception(timeout=10).reason == "DoesNotFit"


def test_a_pod_that_was_evicted_and_left_lying_is_not_asked(rolled, served):
    served.load("loaded")
    rolled.pod("evicted", address="127.0.0.2")
    rolled.report("evicted", phase="Failed", reason="Evicted")
    rolled.pod()
    rolled.settle()
    rolled.wait().result(timeout=10)


def test_a_deployment_that_is_taken_away_is_told(rolled):
    rolled.cluster.delete(clusters.DEPLOYMENT, "w", rolled.namespace)
    error = rolled.wait(timeout=1).exception(timeout=10)
    assert f"Deployment {rolled.namespace}/w: the Deployment is gone after 1 s" in str(error)


def test_an_autoscalers_replicas_must_all_answer(rolled, served, capsys):
    served.load("loaded")
    rolled.cluster.patch(clusters.DEPLOYMENT, "w", rolled.namespace, {"spec": {"replicas": 2}}, subresource="scale")
    rolled.pod()
    rolled.settle(ready=1, replicas=2)
    waiting = rolled.wait()
    pending(waiting, capsys, "1 of 2 replicas answer /health")
    rolled.pod("q")
    rolled.settle(ready=2, replicas=2)
    waiting.result(timeout=10)
