import base64
import gzip
import json

import pytest

from kaito_hera import live
from tests import making


def test_tries_of_a_step_are_taken_together():
    flow = making.workflow(making.inference(), preflight="Succeeded", provision_nodes=("Failed", "second"))
    tree = flow["status"]["nodes"]
    tree["provision-nodes(1)"] = tree["provision-nodes(0)"]
    tree["provision-nodes(0)"] = {**tree["provision-nodes(1)"], "startedAt": making.ago(99), "message": "first"}
    tree["provision-nodes"]["children"].append("provision-nodes(1)")
    steps = live.steps(flow)
    assert list(steps) == ["preflight", "provision-nodes"]
    assert steps["provision-nodes"].message == "second"


def test_a_large_tree_comes_packed():
    flow = making.workflow(making.inference(), preflight="Running")
    tree = flow["status"].pop("nodes")
    flow["status"]["compressedNodes"] = base64.b64encode(gzip.compress(json.dumps(tree).encode())).decode()
    assert live.steps(flow)["preflight"].phase == "Running"


def test_success_counts_only_once_its_outputs_are_there():
    flow = making.workflow(making.inference(), preflight="Succeeded")
    flow["status"]["nodes"]["preflight(0)"]["taskResultSynced"] = False
    assert live.steps(flow)["preflight"].phase == "Running"


def test_a_reason_is_read_out_of_argo_s_message():
    message = making.failed_message("QuotaExceeded", 'family "x" {0 of 24}', retryable=True)
    reason = live.reason(message)
    assert (reason.reason, reason.message, reason.retryable, reason.known) == (
        "QuotaExceeded",
        'family "x" {0 of 24}',
        True,
        True,
    )


def test_a_message_without_a_reason_is_passed_on():
    reason = live.reason("main: OOMKilled (exit code 137)")
    assert (reason.reason, reason.known, reason.retryable) == ("StepFailed", False, True)
    assert reason.message == "main: OOMKilled (exit code 137)"


def test_a_workflow_that_was_stopped_on_purpose_did_not_fail():
    stopped = making.workflow(making.inference(), phase="Failed", shutdown="Terminate", preflight=("Failed", "killed"))
    assert live.failure(stopped) is None


def test_an_error_before_any_step_is_told_with_the_workflow_s_own_words():
    flow = making.workflow(making.inference(), phase="Error")
    flow["status"]["message"] = "invalid spec: templates.x"
    failure = live.failure(flow)
    assert "invalid spec: templates.x" in failure.message
    assert not failure.known


def test_objects_of_an_earlier_workspace_of_that_name_are_not_ours():
    old, new = making.inference(uid="99999999-0000"), making.inference()
    seen = making.live(
        workflows=[making.workflow(old), making.workflow(new)],
        nodes=[making.node(old), making.node(new, name="node-2"), making.node(name="brought")],
    )
    own = seen.of(making.UID)
    assert [w["metadata"]["labels"]["kaito.sh/workspace-uid"] for w in own.workflows] == [making.UID]
    assert [n["metadata"]["name"] for n in own.nodes] == ["node-2", "brought"]


@pytest.mark.parametrize("reason", ["no word", "", {"a": 1}, "x" * 200, None])
def test_what_no_condition_could_say_is_no_reason(reason):
    message = json.dumps({"reason": reason, "message": "m", "retryable": False})
    found = live.reason(message)
    assert (found.reason, found.message, found.known) == ("StepFailed", message, False)


def test_a_container_without_last_words_is_told_by_its_end():
    loop = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s restarting failed container=c"}}
    killed = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
    pod = making.pod(making.inference(), "serving", statuses=[{"state": loop, "lastState": killed}])
    kept = live.waiting(pod)
    assert kept.reason == "ContainerCrashLoopBackOff"
    assert kept.message == "back-off 10s restarting failed container=c; it ended with exit code 137 (OOMKilled)"


@pytest.mark.parametrize(("seen", "again"), [("InvalidImageName", False), ("ErrImagePull", True)])
def test_an_image_that_no_registry_can_have_never_comes(seen, again):
    waiting = {"state": {"waiting": {"reason": seen, "message": 'couldn\'t parse image reference "a/B:1"'}}}
    kept = live.waiting(making.pod(making.inference(), "serving", phase="Pending", statuses=[waiting]))
    assert (kept.reason, kept.retryable) == ("ImagePullError", again)
    assert ("lower-case" in kept.message) is not again
