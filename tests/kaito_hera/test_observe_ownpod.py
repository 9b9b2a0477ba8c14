"""What is observed of a Workspace with a pod of the user's own."""

from kaito_hera import cluster as clusters
from kaito_hera import status, watched
from tests import making
from tests.kaito_hera.observing import observed, reached, recorded

WORKSPACE = {**making.inference(), "inference": {"template": {"spec": {"containers": [{"name": "c", "image": "i"}]}}}}
REFUSED = "pods is forbidden: exceeded quota: gpus"


def seen(*pods, ready=0, conditions=()):
    deployment = making.deployment(WORKSPACE, ready=ready)
    deployment["status"]["conditions"] = list(conditions)
    trimmed = watched.made(clusters.DEPLOYMENT, "kaito-hera").trim(deployment)
    flow = making.workflow(WORKSPACE, preflight="Succeeded", roll_out="Running")
    before = recorded(WORKSPACE, satisfied=reached(WORKSPACE, "nodes"))
    found = observed(
        WORKSPACE, before, workflows=[flow], deployments=[trimmed], pods=pods, nodes=[making.node(WORKSPACE)]
    )
    condition = found.condition(status.INFERENCE_READY)
    return condition.status, condition.reason, condition.message


def test_it_is_ready_when_its_replicas_are():
    assert seen(ready=1)[0] == "True"


def test_it_is_not_asked_for_a_path_that_it_may_not_have():
    assert seen() == ("False", "WorkspaceInferenceStatusPending", "0 of 1 replicas are ready")


def test_pods_that_may_not_be_made_are_told_with_the_reason():
    failure = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": REFUSED}
    assert seen(conditions=[failure]) == ("False", "PodsRefused", f"Deployment team/w: {REFUSED}")


def test_an_image_that_cannot_be_pulled_is_told():
    waiting = {"state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}}
    pod = making.pod(WORKSPACE, "serving", phase="Pending", statuses=[waiting])
    assert seen(pod) == ("False", "ImagePullError", "pod serving-pod: no such image")


def test_observing_needs_no_preset():
    found = observed(WORKSPACE, recorded(WORKSPACE), workflows=[making.workflow(WORKSPACE, preflight="Running")])
    assert found.condition(status.PREFLIGHT_SUCCEEDED).status == "False"
