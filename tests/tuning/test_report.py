import io
import json
import os
import signal

import pytest

from tuning.config import GRACE_SECONDS, Progress, Result
from tuning.errors import Evicted
from tuning.eviction import Eviction
from tuning.report import Report, leave


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def said():
    clock, out = Clock(), io.StringIO()
    report = Report(out, clock)

    def say(percent, seconds=0.0, *, phase="train", last=False, **more):
        clock.now += seconds
        report.say(Progress(phase=phase, percent=percent, **more), last=last)
        return [Progress.parse(line) for line in out.getvalue().splitlines()]

    return say


def test_lines_read_back(said):
    (progress,) = said(7, step=1, max_steps=40, epoch=0.2, loss=7.03, tokens_per_second=2250.9, eta_seconds=4)
    assert progress == Progress(
        phase="train", percent=7, step=1, max_steps=40, epoch=0.2, loss=7.03, tokens_per_second=2250.9, eta_seconds=4
    )


def test_at_most_a_line_every_ten_seconds(said):
    for percent in range(10):
        lines = said(percent, 3)
    assert [line.percent for line in lines] == [0, 4, 8]


def test_the_last_step_is_always_said(said):
    said(5)
    assert [line.percent for line in said(95, last=True)] == [5, 95]


def test_a_new_phase_is_always_said(said):
    said(3, phase="fetch")
    assert [line.phase for line in said(4, phase="load")] == ["fetch", "load"]


def test_the_percentage_never_falls(said):
    said(50)
    assert [line.percent for line in said(40, 10)] == [50, 50]


def test_a_message_is_cut_and_absent_when_there_is_none():
    assert len(Progress(phase="load", percent=4, message="x" * 9999).message) == 300
    assert "message" not in Progress(phase="load", percent=4).line()


def test_whoever_listens_hears_each_step():
    heard, out = [], io.StringIO()
    report = Report(out, Clock(), listeners=[heard.append])
    for step in (1, 2, 3):
        report.say(Progress(phase="train", percent=50 - step, step=step, max_steps=3, loss=1.0))
    assert [(each.step, each.percent) for each in heard] == [(1, 49), (2, 49), (3, 49)]
    assert [row.step for row in report.curve.rows] == [1, 2, 3]
    assert len(out.getvalue().splitlines()) == 1


@pytest.mark.parametrize(
    "line", ["", "progress: ", "progress: {", 'progress: {"phase": "x"}', 'a progress: {"phase":"train","percent":1}']
)
def test_other_lines_are_no_progress(line):
    assert Progress.parse(line) is None


def test_the_termination_message_is_one_json_object(tmp_path, monkeypatch):
    monkeypatch.setenv("TERMINATION_LOG", str(tmp_path / "log"))
    leave(Result(adapter="r@sha256:1", loss=0.5))
    assert json.loads((tmp_path / "log").read_text()) == {"adapter": "r@sha256:1", "loss": 0.5}


def test_without_a_kubelet_the_message_is_printed(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TERMINATION_LOG", str(tmp_path))  # a folder cannot be written
    leave(Result(adapter="r@sha256:1"))
    assert json.loads(capsys.readouterr().err) == {"adapter": "r@sha256:1"}


@pytest.fixture
def eviction():
    before = signal.getsignal(signal.SIGTERM)
    listening = Eviction()
    listening.listen()
    yield listening
    signal.signal(signal.SIGTERM, before)


def test_sigterm_ends_at_once_what_may_be_ended(eviction):
    with pytest.raises(Evicted, match="before there was anything to lose"):
        os.kill(os.getpid(), signal.SIGTERM)


def test_sigterm_waits_for_a_good_moment_where_there_is_one(eviction):
    with eviction.deferred():
        os.kill(os.getpid(), signal.SIGTERM)
        assert eviction.requested
        with pytest.raises(Evicted, match="at step 3; the next attempt starts over"):
            eviction.check("at step 3")
        eviction.resumes_from = 2
        with pytest.raises(Evicted, match="at step 3; the next attempt goes on from step 2"):
            eviction.check("at step 3")


def test_a_second_sigterm_gives_no_more_time(eviction):
    assert eviction.left() == GRACE_SECONDS
    with eviction.deferred():
        os.kill(os.getpid(), signal.SIGTERM)
        first = eviction.left()
        os.kill(os.getpid(), signal.SIGTERM)
        assert eviction.left() <= first < GRACE_SECONDS


def test_sigterm_ends_a_sleep(eviction):
    with eviction.deferred():
        os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(Evicted):
        eviction.sleep(60)
