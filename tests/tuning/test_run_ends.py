"""Runs that end before anything heavy: bad rows, no model, no disk, an eviction, and what nobody expected."""

import json
import os
import signal
import threading

import pytest

from tests import terminations
from tests.tuning import servers
from tests.tuning.conftest import start
from tuning import errors
from tuning.config import Exit
from tuning.places import Places
from tuning.run import use_scratch
from tuning.training import hub


def test_bad_rows_end_a_run_before_anything_heavy(config, registry, files, auth, tmp_path):
    files.files["/rows.jsonl"] = b'{"x": 1}\n{"messages": "hello"}\n'
    running = start(
        tmp_path, config(f"{registry.host}/team/a:1"), "--push-auth", str(auth), HF_ENDPOINT="http://127.0.0.1:1"
    )
    _, err = running.communicate(timeout=60)
    assert running.returncode == Exit.BAD_DATA, err
    left = terminations.of_tuning((tmp_path / "termination").read_text())
    assert "no row of 2 can be used: rows.jsonl row 1: columns x are no known shape" in left.message


def test_an_eviction_does_not_wait_for_a_download(config, registry, files, auth, tmp_path):
    begun, never = threading.Event(), threading.Event()

    def hang(_request):
        begun.set()
        never.wait(180)

    files.files["/rows.jsonl"] = hang
    running = start(tmp_path, config(f"{registry.host}/team/a:1"), "--push-auth", str(auth))
    assert begun.wait(60)
    running.send_signal(signal.SIGTERM)
    _, err = running.communicate(timeout=60)  # the download itself goes on for its two minutes of patience
    never.set()
    assert running.returncode == Exit.EVICTED, err
    assert terminations.of_tuning((tmp_path / "termination").read_text()).reason == "Evicted"


def test_a_model_that_the_hub_does_not_have(config, registry, files, auth, tmp_path):
    files.files["/rows.jsonl"] = b'{"text": "x"}\n'
    empty = servers.Hub(tmp_path)
    running = start(tmp_path, config(f"{registry.host}/team/a:1"), "--push-auth", str(auth), HF_ENDPOINT=empty.url)
    _, err = running.communicate(timeout=60)
    assert running.returncode == Exit.BAD_MODEL, err
    left = terminations.of_tuning((tmp_path / "termination").read_text())
    assert "inference.preset.name: model tiny/phi at main: is not on the hub, or it is private" in left.message
    assert left.reason == "ModelNotFound"
    empty.close()


def test_a_hub_that_is_down(config, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{servers.free_port()}")
    with pytest.raises(errors.ModelFiles, match="model tiny/phi at main: could not be fetched") as away:
        hub.download(config("reg.io/a:1"), Places(scratch=tmp_path), patience=0)
    failure = away.value.failure()
    assert (failure.reason, failure.retryable, away.value.code) == ("HubUnavailable", True, Exit.NETWORK)


def test_a_disk_that_is_full(tuning, config, registry, files, auth, tmp_path):
    files.files["/rows.jsonl"] = b'{"text": "x"}\n'
    (tmp_path / "scratch" / "data").mkdir(parents=True)
    (tmp_path / "scratch" / "data" / "000-rows.jsonl").symlink_to("/dev/full")
    done = tuning(config(f"{registry.host}/team/a:1"), "--push-auth", str(auth))
    assert (done.code, done.left.reason, done.left.retryable) == (Exit.NODE_TROUBLE, "NodeTrouble", True)
    assert "No space left on device" in done.left.message


@pytest.mark.parametrize("verb", [(), ("validate",)])
@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"intent": "../../x"}, "intent: Value error, it is no name for a folder; write a hash, "),
        ({"intent": "."}, "intent: Value error, it is no name for a folder; write a hash, "),
        ({"intent": "x" * 65}, "intent: Value error, it is no name for a folder; write a hash, "),
        ({"processes": 10**9}, "processes: Input should be less than or equal to 64, found '1000000000'"),
    ],
)
def test_a_config_that_nothing_can_follow(tuning, config, verb, changed, said):
    done = tuning(json.dumps(config("reg.io/a:1").model_dump(mode="json") | changed), *verb)
    assert (done.code, done.left.reason, done.left.retryable) == (Exit.BAD_CONFIG, "ConfigInvalid", False)
    assert said in done.left.message
    assert repr(str(*changed.values())) in done.left.message


def test_what_nobody_expected(tuning, config, registry, files, auth, tmp_path):
    (tmp_path / "scratch").write_text("a file where a folder should be")
    done = tuning(config(f"{registry.host}/team/a:1"), "--push-auth", str(auth))
    assert (done.code, done.left.reason) == (Exit.UNEXPECTED, "Unexpected")
    assert "FileExistsError" in done.left.message


def test_libraries_keep_to_the_scratch_folder(tmp_path, monkeypatch):
    for name in ("HF_HOME", "TORCHDYNAMO_DISABLE"):
        monkeypatch.setenv(name, "x")
        monkeypatch.delenv(name)
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "mine")
    use_scratch(tmp_path / "s")
    assert os.environ["HF_HOME"].startswith(str(tmp_path))
    assert os.environ["TOKENIZERS_PARALLELISM"] == "mine"
