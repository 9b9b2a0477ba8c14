"""Jobs against a real API server; the test plays Job controller and kubelet."""

import concurrent.futures
import json
import subprocess
import sys
import time

import pytest

from kaito_hera import cluster as clusters
from kaito_hera import errors, jobs, names, pods
from kaito_hera.api import Workspace
from kaito_hera.run import Run
from tests import making
from tests.apiserver.conftest import ROOT, until
from tuning.config import Progress

STAMP = "2026-01-01T00:00:{:02}.00000000{}Z"


@pytest.fixture
def workspace(apply):
    return Workspace.parse(apply(making.tuning()))


@pytest.fixture
def follow(cluster, namespace, workspace, settings):
    """Starts to follow a Job; the future of its answer."""
    with concurrent.futures.ThreadPoolExecutor() as pool:

        def start(*, attempt=1, connection=None, patience=900, **options):
            chosen = settings.model_copy(update={"start_timeout_seconds": patience})
            run = Run(connection or cluster, workspace, chosen, provider=None)
            return pool.submit(jobs.run, run, task(workspace, settings, attempt), **{"pause": 0.2, **options})

        yield start
        for left in cluster.items(clusters.JOB, namespace):  # whoever still follows it ends
            cluster.delete(clusters.JOB, left["metadata"]["name"], namespace)


def task(workspace, settings, attempt=1):
    frame = pods.Frame(role="tuning", image="i", args=("tuning",))
    template = pods.template(workspace, settings, frame)
    return jobs.Task(names.job(workspace, attempt), "tuning", attempt, template, 100)


def job(cluster, namespace, name="w"):
    return until(lambda: cluster.get(clusters.JOB, name, namespace), what="the Job")


def failure(following):
    error = following.exception(timeout=15)
    assert isinstance(error, errors.KaitoError), error
    return error.reason, error.retryable, str(error)


def test_a_job_is_made_followed_and_answers(cluster, namespace, node, follow, workspace):
    following = follow()
    made = job(cluster, namespace)
    assert made["metadata"]["ownerReferences"][0]["uid"] == workspace.metadata.uid
    assert made["metadata"]["labels"][names.ROLE] == "tuning"
    pod = node.start(made, phase="Pending")
    node.report(pod, phase="Running")
    time.sleep(0.3)
    assert not following.done()
    node.end(pod, message=json.dumps({"adapter": "team.azurecr.io/a@sha256:1"}))
    assert following.result(timeout=15) == {"adapter": "team.azurecr.io/a@sha256:1"}


def test_what_a_job_says_went_wrong_is_raised(cluster, namespace, node, follow):
    following = follow()
    word = {"reason": "BadData", "message": "tuning.input.urls[0]: row 7 has no answer", "retryable": False}
    node.end(node.start(job(cluster, namespace)), code=11, message=json.dumps(word), reason="Error")
    assert failure(following) == ("BadData", False, "tuning.input.urls[0]: row 7 has no answer")


def test_an_evicted_pod_is_a_lost_node(cluster, namespace, node, follow):
    following = follow()
    node.report(node.start(job(cluster, namespace)), phase="Failed", reason="Evicted", message="low on memory")
    assert failure(following)[:2] == ("NodeLost", True)


def test_a_pod_that_vanished_with_its_node_is_a_lost_node(cluster, namespace, node, follow):
    following = follow()
    node.drop(node.start(job(cluster, namespace)))
    node.conclude("w", "FailureTarget", "Failed", reason="BackoffLimitExceeded", failed=1)
    assert failure(following)[:2] == ("NodeLost", True)


def test_a_job_that_is_complete_without_its_pod_is_not_waited_for(cluster, namespace, node, follow):
    following = follow()
    pod = node.start(job(cluster, namespace))
    node.drop(pod)
    node.conclude("w", "SuccessCriteriaMet", "Complete", completionTime="2026-01-01T00:00:00Z", succeeded=1)
    assert failure(following)[:2] == ("NodeLost", True)


def test_a_job_that_took_too_long_is_not_tried_again(cluster, namespace, node, follow):
    following = follow()
    node.start(job(cluster, namespace))
    node.conclude("w", "FailureTarget", "Failed", reason="DeadlineExceeded", failed=1)
    reason, retryable, text = failure(following)
    assert (reason, retryable) == ("DeadlineExceeded", False)
    assert f"Job {namespace}/w took longer than 100 s" in text


@pytest.mark.parametrize(
    ("status", "reason", "words"),
    [
        pytest.param({}, "NotStarted", "did not start within 100 s", id="nothing-said"),
        pytest.param(
            {"conditions": [{"type": "PodScheduled", "status": "False", "message": "0/3 nodes are available"}]},
            "Unschedulable",
            "0/3 nodes are available",
            id="no-node",
        ),
    ],
)
def test_a_job_that_never_started_may_start_another_time(cluster, namespace, node, follow, status, reason, words):
    following = follow()
    pod = node.start(job(cluster, namespace), phase="Pending")
    node.report(pod, **status)
    time.sleep(0.5)
    node.conclude("w", "FailureTarget", "Failed", reason="DeadlineExceeded", failed=1)
    assert failure(following)[:2] == (reason, True)
    assert words in failure(following)[2]


NO_GPU = {"conditions": [{"type": "PodScheduled", "status": "False", "message": "0/3 nodes are available"}]}
NO_IMAGE = {"waiting": {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "i"'}}
CONTAINER = {"name": "tuning", "image": "i", "imageID": "", "ready": False, "restartCount": 0}


@pytest.mark.parametrize(
    ("status", "reason", "words"),
    [
        pytest.param(NO_GPU, "Unschedulable", "0/3 nodes are available", id="no-gpu"),
        pytest.param(
            {"containerStatuses": [{**CONTAINER, "state": NO_IMAGE}]}, "ImagePullError", "Back-off", id="no-image"
        ),
        pytest.param(
            {"conditions": [{"type": "PodReadyToStartContainers", "status": "False"}]},
            "ContainerStartError",
            "its volumes or its network",
            id="no-volume",
        ),
    ],
)
def test_a_pod_that_waits_for_what_does_not_come_gives_its_node_up(
    cluster, namespace, node, follow, status, reason, words
):
    following = follow(patience=1)
    pod = node.start(job(cluster, namespace), phase="Pending")
    node.report(pod, **status)
    said, retryable, text = failure(following)
    assert (said, retryable) == (reason, True)
    assert f"Job {namespace}/w: pod {pod} has not got on for 1 s: {reason}: " in text
    assert words in text


def test_a_job_that_gets_no_pod_gives_its_node_up(cluster, namespace, node, follow):
    reason, retryable, text = failure(follow(patience=1))
    assert (reason, retryable) == ("NotStarted", True)
    assert "a quota may be full" in text


def test_an_image_that_takes_long_is_waited_for(cluster, namespace, node, follow):
    following = follow(patience=1)
    pod = node.start(job(cluster, namespace), phase="Pending")
    pulling = {**CONTAINER, "state": {"waiting": {"reason": "ContainerCreating"}}}
    node.report(pod, containerStatuses=[pulling])
    time.sleep(2.0)
    assert not following.done()
    node.end(pod)
    assert following.result(timeout=15) == {}


def test_each_thing_that_is_waited_for_has_its_own_time(cluster, namespace, node, follow):
    following = follow(patience=2)
    pod = node.start(job(cluster, namespace), phase="Pending")
    node.report(pod, **NO_GPU)
    time.sleep(1.2)
    node.report(pod, conditions=[], containerStatuses=[{**CONTAINER, "state": NO_IMAGE}])
    time.sleep(1.2)
    assert not following.done()
    node.end(pod)
    assert following.result(timeout=15) == {}


def test_a_job_that_is_deleted_was_superseded(cluster, namespace, node, follow):
    following = follow()
    node.start(job(cluster, namespace))
    cluster.delete(clusters.JOB, "w", namespace)
    assert failure(following)[0] == "Superseded"


def test_a_job_of_someone_else_is_left_alone(cluster, namespace, follow, workspace, settings):
    foreign = jobs.manifest(workspace, task(workspace, settings))
    del foreign["metadata"]["ownerReferences"]
    stored = cluster.create(clusters.JOB, foreign)
    reason, retryable, text = failure(follow())
    assert (reason, retryable) == ("InvalidWorkspace", False)
    assert f"Job {namespace}/w is there already" in text
    assert cluster.get(clusters.JOB, "w", namespace)["metadata"]["uid"] == stored["metadata"]["uid"]


def test_a_job_of_an_earlier_workspace_of_this_name_is_about_to_go(cluster, follow, workspace, settings):
    earlier = jobs.manifest(workspace, task(workspace, settings))
    earlier["metadata"]["ownerReferences"][0]["uid"] = "99999999-2222-3333-4444-555555555555"
    cluster.create(clusters.JOB, earlier)
    reason, retryable, text = failure(follow())
    assert retryable, "the garbage collector takes some seconds: no reason for the user to do anything"
    assert "of an earlier Workspace of this name" in text
    assert reason == "Conflict"


def test_each_attempt_has_a_job_of_its_own(cluster, namespace, node, follow, workspace):
    following = follow(attempt=2)
    node.end(node.start(job(cluster, namespace, names.job(workspace, 2))))
    assert following.result(timeout=15) == {}


def test_an_api_server_that_is_away_ends_no_job(cluster, namespace, node, follow, wire):
    following = follow(connection=wire.cluster)
    pod = node.start(job(cluster, namespace))
    wire.whole = False
    wire.cut()
    calls = wire.calls
    until(lambda: wire.calls > calls + 2, what="some tries in vain")
    assert not following.done()
    node.end(pod, message='{"adapter": "x"}')
    wire.whole = True
    assert following.result(timeout=15) == {"adapter": "x"}


PROGRAM = """
import json, sys
from kaito_hera import cluster, jobs, run, settings
from kaito_hera.api import Workspace
workspace = Workspace.model_validate_json(sys.argv[1])
task = jobs.Task(**json.loads(sys.argv[2]))
print(jobs.run(run.Run(cluster.Cluster.connect(), workspace, settings.Settings(), None), task, pause=0.2)["adapter"])
"""


def test_a_follower_that_is_killed_is_followed_by_one_that_finds_the_job(cluster, namespace, node, workspace, settings):
    asked = json.dumps(vars(task(workspace, settings)))
    command = [sys.executable, "-c", PROGRAM, workspace.model_dump_json(by_alias=True), asked]
    options = {"cwd": ROOT, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **options) as first:
        made = job(cluster, namespace)
        pod = node.start(made)
        first.kill()
    with subprocess.Popen(command, **options) as second:
        time.sleep(1.0)
        node.end(pod, message='{"adapter": "found"}')
        told, _ = second.communicate(timeout=30)
    assert told.strip() == "found"
    assert job(cluster, namespace)["metadata"]["uid"] == made["metadata"]["uid"]
    third = subprocess.run(command, **options, timeout=30, check=True)
    assert third.stdout.strip() == "found", "the answer stays for who asks again"


def line(**progress):
    return Progress(**progress).line()


def annotated(cluster, namespace):
    return json.loads(job(cluster, namespace)["metadata"].get("annotations", {}).get(names.PROGRESS, "{}"))


def test_progress_is_merged_over_the_phases_and_told_to_argo(
    cluster, namespace, node, follow, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("ARGO_PROGRESS_FILE", str(tmp_path / "progress"))
    node.log = [
        (STAMP.format(1, 1), "loading phi-3"),
        (STAMP.format(1, 1), line(phase="load", percent=4, message="loading")),
        (STAMP.format(1, 2), line(phase="train", percent=50, step=3, max_steps=6, loss=1.5)),
        (STAMP.format(2, 1), line(phase="push", percent=96)),
    ]
    following = follow(read=Progress.parse)
    pod = node.start(job(cluster, namespace))
    until(lambda: annotated(cluster, namespace).get("phase") == "push", what="progress on the Job")
    told = annotated(cluster, namespace)
    assert told == {"phase": "push", "percent": 96, "step": 3, "max_steps": 6, "loss": 1.5, "message": ""}
    assert (tmp_path / "progress").read_text() == "96/100\n"
    node.log.append((STAMP.format(2, 2), "pushed"))
    node.log.append((STAMP.format(3, 1), line(phase="push", percent=100)))
    node.end(pod, message='{"adapter": "x"}')
    assert following.result(timeout=15) == {"adapter": "x"}
    assert annotated(cluster, namespace)["percent"] == 100, "what was said last is not lost"
    printed = capsys.readouterr().out
    assert printed.splitlines().count("loading phi-3") == 1, "a log that is opened again is not told again"
    assert printed.splitlines().count("pushed") == 1
    assert any(request.query.get("sinceTime") for request in node.asked)


def test_progress_is_written_seldom(cluster, namespace, node, follow):
    node.log = [(STAMP.format(1, at), line(phase="train", percent=at, step=at)) for at in range(1, 9)]
    following = follow(read=Progress.parse, pause=30.0)
    pod = node.start(job(cluster, namespace))
    until(lambda: node.asked, what="the log to be read")
    flip(node, pod)
    before = job(cluster, namespace)["metadata"]["resourceVersion"]
    node.log.append((STAMP.format(2, 1), line(phase="train", percent=52)))
    flip(node, pod)
    assert job(cluster, namespace)["metadata"]["resourceVersion"] == before
    node.end(pod)
    assert following.result(timeout=15) == {}
    assert annotated(cluster, namespace)["percent"] == 52


def flip(node, pod):
    """Events of the pod: the follower looks at it each time."""
    for at in range(3):
        node.report(pod, conditions=[{"type": "Ready", "status": "True", "reason": f"change{at}"}])
        time.sleep(0.2)


def test_a_log_that_cannot_be_read_hinders_nobody(cluster, namespace, node, follow):
    following = follow(read=Progress.parse)
    made = job(cluster, namespace)
    pod = node.start(made)
    cluster.delete(clusters.NODE, node.node)  # the API server no longer knows where to ask
    time.sleep(0.6)
    assert not following.done()
    node.end(pod, message='{"adapter": "x"}')
    assert following.result(timeout=15) == {"adapter": "x"}
