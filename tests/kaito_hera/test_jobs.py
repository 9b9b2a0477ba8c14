import json

import pytest

from kaito_hera import errors, jobs, names
from kaito_hera.jobs import _verdict
from kaito_hera.run import Run
from kaito_hera.settings import Settings
from tests import making


def job(**conditions):
    return {
        "metadata": {"namespace": "team", "name": "w"},
        "spec": {"activeDeadlineSeconds": 100},
        "status": {
            "conditions": [{"type": "Failed", "status": "True", "reason": reason} for reason in conditions.values()]
        },
    }


def ended(code, message="", *, reason="Error", **status):
    state = {"terminated": {"exitCode": code, "message": message, "reason": reason}}
    return {"status": {"phase": "Failed" if code else "Succeeded", "containerStatuses": [{"state": state}], **status}}


def test_an_answer_is_the_job_s_own_word():
    assert _verdict(job(), ended(0, '{"adapter": "x@sha256:1"}')) == {"adapter": "x@sha256:1"}
    assert _verdict(job(), ended(0)) == {}


def test_a_job_that_says_why_it_failed_is_believed():
    word = json.dumps({"reason": "RegistryAuth", "message": "wrong password", "retryable": False})
    with pytest.raises(errors.ReportedTerminalError, match="wrong password") as failed:
        _verdict(job(), ended(30, word))
    assert failed.value.reason == "RegistryAuth"


@pytest.mark.parametrize(
    ("seen", "pod", "reason", "retryable"),
    [
        pytest.param(job(), ended(1, "Traceback ..."), "Crashed", True, id="crash"),
        pytest.param(job(), ended(137, reason="OOMKilled"), "OOMKilled", False, id="host-memory"),
        pytest.param(job(), None, "NodeLost", True, id="pod-gone"),
        pytest.param(
            job(),
            ended(137, conditions=[{"type": "DisruptionTarget", "status": "True"}]),
            "NodeLost",
            True,
            id="evicted",
        ),
        pytest.param(job(why="DeadlineExceeded"), None, "DeadlineExceeded", False, id="too-slow"),
    ],
)
def test_a_job_that_dies_without_a_word_is_judged_by_its_end(seen, pod, reason, retryable):
    with pytest.raises(errors.KaitoError) as failed:
        _verdict(seen, pod)
    assert (failed.value.reason, failed.value.retryable) == (reason, retryable)


class Upgraded:
    """An API server whose rights are away for some looks, as while their Role is made anew."""

    def __init__(self, looks):
        self.looks = looks

    def create(self, _kind, _manifest):
        pass

    def page(self, *_, **__):
        self.looks -= 1
        if self.looks >= 0:
            raise errors.ForbiddenError("pods is forbidden")
        return {"items": [ended(0, '{"adapter": "x@sha256:1"}')]}

    def get(self, *_):
        return job()


def test_a_job_runs_on_while_the_right_to_look_at_it_is_away():
    run = Run(Upgraded(3), making.parsed(making.tuning()), Settings(), provider=None)
    task = jobs.Task("w", "tuning", 1, {"spec": {"containers": []}}, 60)
    assert jobs.run(run, task, pause=0.01) == {"adapter": "x@sha256:1"}


def test_kubernetes_never_tries_a_job_again_by_itself():
    workspace = making.parsed(making.tuning())
    template = {"metadata": {}, "spec": {"containers": [], "tolerations": [{"key": "sku"}]}}
    made = jobs.manifest(workspace, jobs.Task("w", "tuning", 2, template, 60))
    assert made["spec"]["backoffLimit"] == 0
    assert made["spec"]["activeDeadlineSeconds"] == 60
    assert made["spec"]["template"]["spec"]["restartPolicy"] == "Never"
    lost = {t["key"]: t.get("tolerationSeconds") for t in made["spec"]["template"]["spec"]["tolerations"]}
    assert lost == {"sku": None, "node.kubernetes.io/unreachable": 30, "node.kubernetes.io/not-ready": 30}
    assert made["metadata"]["labels"][names.ATTEMPT] == "2"
    assert made["metadata"]["ownerReferences"][0]["uid"] == making.UID
