"""The base model's files: looked at by a check, and fetched from the hub or an image."""

import io
import json
import subprocess
import sys

import pytest

from artifacts.weights import push
from artifacts.weights.config import Found, Model
from tests import terminations
from tests.tuning import servers
from tests.tuning.conftest import ROOT
from tests.tuning.test_check import ROWS, WITHOUT
from tuning import errors
from tuning.config import Exit
from tuning.eviction import Eviction
from tuning.places import Places
from tuning.report import Report
from tuning.run import Run
from tuning.training import hub

HUB = {"id": "tiny/phi", "revision": "main", "field": "tuning.preset", "ask": True}


@pytest.fixture
def model(tmp_path, monkeypatch):
    """A hub with one model; its folder."""
    folder = tmp_path / "models/tiny/phi"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    server = servers.Hub(tmp_path / "models")
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    yield folder
    server.close()


@pytest.fixture
def checked(tuning, config, files, registry, auth):
    files.files["/rows.jsonl"] = ROWS

    def go(**model):
        asked = config(f"{registry.host}/team/a:1", model={**HUB, **model})
        return tuning(asked, "validate", "--push-auth", str(auth))

    return go


def test_a_check_answers_with_the_models_commit(model, checked):
    done = checked()
    assert (done.code, done.left.model) == (Exit.DONE, Found(pinned=servers.COMMIT))


def test_a_check_answers_with_the_numbers_of_a_model_that_nobody_described(model, checked):
    settings = {"architectures": ["Phi3ForCausalLM"], "model_type": "phi3", "num_hidden_layers": 2}
    (model / "config.json").write_text(json.dumps(settings))
    found = checked(known=False).left.model
    assert (found.bytes, found.preset.hub_id, found.preset.name) == (7, "tiny/phi", "tiny/phi")


def test_a_check_tells_what_is_wrong_with_the_model(model, checked):
    done = checked(id="tiny/none")
    assert (done.code, done.left.reason, done.left.retryable) == (Exit.BAD_MODEL, "ModelNotFound", False)
    assert done.left.message.startswith("tuning.preset.name: model tiny/none at main: is not on the hub")


def test_a_look_at_a_model_needs_nothing_heavy(model, files, registry, config, auth, tmp_path):
    files.files["/rows.jsonl"] = ROWS
    path = tmp_path / "config.json"
    path.write_text(config(f"{registry.host}/team/a:1", model=HUB).model_dump_json())
    command = [sys.executable, "-c", WITHOUT, "validate", str(path), "--push-auth", str(auth)]
    hub_address = {"HF_ENDPOINT": f"http://127.0.0.1:{servers.free_port()}"}
    environment = {"TERMINATION_LOG": str(tmp_path / "t"), "PATH": "/usr/bin", **hub_address}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == Exit.NETWORK, done.stderr
    assert terminations.of_tuning((tmp_path / "t").read_text()).reason == "HubUnavailable"


def test_the_model_comes_from_an_image_with_the_pull_secret(model, config, registry, auth, tmp_path):
    named = Model(id="tiny/phi", revision="main")
    pushed = push.push(named, f"{registry.host}/team/phi:1", folder=model, auth=auth, out=io.StringIO())
    asked = config("reg.io/a:1", model={**HUB, "image": pushed.image})
    folder = hub.download(asked, Places(scratch=tmp_path / "scratch", pull_auth=auth))
    assert (folder / "model.safetensors").read_bytes() == b"weights"
    with pytest.raises(errors.ModelFiles, match=r"tuning\.preset\.presetOptions\.imagePullSecrets") as refused:
        hub.download(asked, Places(scratch=tmp_path / "other", pull_auth=tmp_path / "none"))
    assert (refused.value.reason(), refused.value.code) == ("ImageForbidden", Exit.REGISTRY_AUTH)


@pytest.mark.torch
def test_what_is_fetched_is_told_as_progress(model, config, files, registry, auth, tmp_path):
    """It ends there: these files are no model."""
    files.files["/rows.jsonl"] = ROWS
    (model / "model.safetensors").write_bytes(b"x" * 3 * 2**20)
    heard = []
    asked = config(f"{registry.host}/team/a:1", model=HUB)
    places = Places(scratch=tmp_path / "scratch", push_auth=auth)
    with pytest.raises(errors.ModelUnusable):
        Run(asked, places, Report(None, listeners=[heard.append]), Eviction()).go()
    told = [(each.percent, each.message) for each in heard if each.phase == "fetch"]
    [data, weights] = [(percent, words) for percent, words in told if words.startswith("fetched ")]
    assert data[1].startswith("fetched data: 0.0 MiB in ")
    assert weights[0] == 3
    assert weights[1].startswith("fetched weights: 3.0 MiB in ")
