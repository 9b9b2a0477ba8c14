"""Waiting for a pod of the user's own, against a real API server; the test plays Deployment controller and kubelet."""

import concurrent.futures
import json

import pytest

from kaito_hera import errors
from kaito_hera.api import Workspace
from kaito_hera.run import Run
from tests import making
from tests.apiserver.rolled import Rollout, pending

TEMPLATE = {
    "spec": {
        "containers": [
            {
                "name": "own",
                "image": "team.azurecr.io/own:1",
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "runAsNonRoot": True,
                    "capabilities": {"drop": ["ALL"]},
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
            }
        ]
    }
}


@pytest.fixture
def rolled(cluster, apply, settings):
    parsed = Workspace.parse(apply({**making.inference(), "inference": {"template": TEMPLATE}}))
    with concurrent.futures.ThreadPoolExecutor() as pool:
        playing = Rollout(Run(cluster, parsed, settings, None), None, pool)
        playing.apply()
        yield playing


def state(**container):
    return [{"name": "own", "image": "i", "imageID": "", "ready": False, "restartCount": 1, **container}]


def test_it_waits_for_every_replica_to_be_ready_and_asks_it_nothing(rolled, capsys):
    waiting = rolled.wait()
    pending(waiting, capsys, "the Deployment is not looked at yet")
    rolled.pod(address="192.0.2.1")  # nobody answers there
    rolled.settle(ready=0)
    pending(waiting, capsys, "0 of 1 replicas are ready")
    rolled.settle()
    assert waiting.result(timeout=5) is None


def test_what_keeps_it_is_told_and_is_the_error_at_the_end(rolled, capsys):
    rolled.pod()
    rolled.settle(ready=0)
    back_off = {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}}
    rolled.report(containerStatuses=state(state=back_off))
    waiting = rolled.wait(timeout=3)
    pending(waiting, capsys, "0 of 1 replicas are ready; pod p: ImagePullError: Back-off pulling image")
    error = waiting.exception(timeout=10)
    assert isinstance(error, errors.ServerNotReadyError)
    assert "0 of 1 replicas are ready; pod p: ImagePullError: Back-off pulling image after 3 s" in str(error)


def test_an_image_that_can_never_be_pulled_ends_it_unless_it_is_being_replaced(rolled, capsys):
    never = {"waiting": {"reason": "InvalidImageName", "message": "couldn't parse image reference"}}
    rolled.pod("old", image="team.azurecr.io/own:0")
    rolled.report("old", containerStatuses=state(state=never))
    rolled.settle(ready=0)
    waiting = rolled.wait()
    pending(waiting, capsys, "0 of 1 replicas are ready; pod old: ImagePullError: couldn't parse image reference")
    rolled.pod()
    rolled.drop("old")
    rolled.report(containerStatuses=state(state=never))
    error = waiting.exception(timeout=10)
    assert (error.reason, error.retryable) == ("ImagePullError", False)
    assert str(error).startswith("pod p: ImagePullError: couldn't parse image reference; write HOST/REPOSITORY:TAG")


def test_what_it_says_as_it_ends_is_no_word_of_ours(rolled, capsys):
    rolled.pod()
    rolled.settle(ready=0)
    waiting = rolled.wait()
    pending(waiting, capsys, "0 of 1 replicas are ready")
    word = json.dumps({"reason": "Whatever", "message": "never mind", "retryable": False})
    rolled.crash(word, state="lastState")
    rolled.settle()
    assert waiting.result(timeout=5) is None


def test_pods_that_may_not_be_made_are_told(rolled, capsys):
    waiting = rolled.wait()
    rolled.settle(ready=0, replicas=0)
    found = {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota: gpus"}
    rolled.fail(found)
    pending(waiting, capsys, "0 of 1 replicas are up to date: exceeded quota: gpus")
    rolled.settle()
    assert waiting.result(timeout=5) is None
