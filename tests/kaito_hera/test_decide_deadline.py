"""A tuning Job that runs follows an edit of its deadline."""

import pytest

from kaito_hera.actions import SetDeadline
from kaito_hera.settings import Settings
from tests import making
from tests.kaito_hera.deciding import decided, status

DEFAULT = Settings().tuning_timeout_seconds


def tuning(**more):
    workspace = making.tuning()
    return making.edited(workspace, tuning={**workspace["tuning"], **more})


def decided_with(workspace, job, **steps):
    running = making.workflow(making.tuning(), kind="tune", **steps)
    return decided(workspace, status(making.tuning(), kind="tune"), making.live(workflows=[running], jobs=[job]))


@pytest.mark.parametrize(
    ("stands", "asked", "seconds"),
    [
        (DEFAULT, {"activeDeadlineSeconds": 7 * DEFAULT}, 7 * DEFAULT),
        (DEFAULT, {"activeDeadlineSeconds": 60}, 60),
        (60, {}, DEFAULT),
        (None, {}, DEFAULT),
    ],
    ids=["later", "sooner", "taken out", "taken out of the Job"],
)
def test_an_edited_deadline_is_that_of_the_job_that_runs(stands, asked, seconds):
    job = making.job(making.tuning())
    job["spec"] = {"activeDeadlineSeconds": stands} if stands else {}
    assert decided_with(tuning(**asked), job, train="Running") == [SetDeadline("team", "w", seconds)]


def test_a_deadline_that_stands_is_left_alone():
    assert decided_with(tuning(activeDeadlineSeconds=DEFAULT), making.job(making.tuning()), train="Running") == []


@pytest.mark.parametrize("other", [{"succeeded": 1}, {"failed": 1}, {"role": "check"}])
def test_no_other_job_has_that_deadline(other):
    job = making.job(making.tuning(), **other)
    actions = decided_with(tuning(activeDeadlineSeconds=60), job, train="Running")
    assert not [action for action in actions if isinstance(action, SetDeadline)]
