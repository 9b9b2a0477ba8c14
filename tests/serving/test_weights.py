"""Weights from a hub, with the real client."""

import logging
import subprocess
import sys

import pytest

from artifacts.weights import shared
from serving import config, errors, settings, weights
from tests.serving import modelhub

REVISION = "0123456789abcdef0123456789abcdef01234567"
FETCH = """
import sys, pathlib
from serving import weights, config, errors
try:
    model = config.Model(id=sys.argv[1], revision=sys.argv[2])
    cache = pathlib.Path(sys.argv[4]) if sys.argv[4:] else None
    print(weights.fetch(model, pathlib.Path(sys.argv[3]), pathlib.Path("none"), cache))
except errors.Fatal as error:
    sys.exit(f"{error.reason} {int(error.exit)} {error.retryable}: {error}")
"""


@pytest.fixture
def hub(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    names = [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "evil.py",
        "pytorch_model.bin",
        "consolidated.safetensors",
    ]
    for name in names:
        (folder / name).write_text(name)
    with modelhub.running({"acme/tiny": (REVISION, folder)}) as (hub, url):
        hub.url = url
        yield hub


def fetch(hub, tmp_path, model="acme/tiny", revision=REVISION, **environment):
    """In a process of its own: the client reads its environment once."""
    done = run(hub, tmp_path, model, revision, tmp_path / "scratch", **environment)
    return done.stdout.strip(), done.stderr.strip().splitlines()[-1:] or [""]


def run(hub, tmp_path, *arguments, **environment):
    return subprocess.run(
        [sys.executable, "-c", FETCH, *arguments],
        env={"HF_ENDPOINT": hub.url, "HOME": str(tmp_path), "PATH": "/usr/bin"} | environment,
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_only_what_is_needed_is_fetched_and_once(hub, tmp_path):
    folder, _ = fetch(hub, tmp_path)
    names = sorted(file.name for file in (tmp_path / "scratch").glob("hub/models--*/snapshots/*/*"))
    assert names == ["config.json", "model.safetensors", "tokenizer.json"]
    assert folder.endswith(REVISION)
    hub.asked.clear()
    assert fetch(hub, tmp_path)[0] == folder
    assert not [path for path in hub.asked if "safetensors" in path]
    hub.refuse = 500
    assert fetch(hub, tmp_path, HF_HUB_OFFLINE="1")[0] == folder


def test_hub_that_is_not_there_may_come_back(hub, tmp_path):
    _, (said,) = fetch(hub, tmp_path, HF_HUB_OFFLINE="1")
    assert said.startswith("HubUnavailable 40 True: inference.preset.name: model acme/tiny")


@pytest.mark.parametrize(
    ("asked", "refuse", "words"),
    [
        pytest.param(
            ("acme/none", REVISION), 0, "ModelNotFound 12 False: inference.preset.name: model acme/none", id="model"
        ),
        pytest.param(
            ("acme/tiny", "f" * 40),
            0,
            "ModelNotFound 12 False: inference.preset.name: model acme/tiny at ffff",
            id="revision",
        ),
        pytest.param(
            ("acme/tiny", REVISION), 403, "GatedModel 12 False: inference.preset.name: model acme/tiny", id="forbidden"
        ),
    ],
)
def test_errors_are_told_apart(hub, tmp_path, asked, refuse, words):
    hub.refuse = refuse
    _, (said,) = fetch(hub, tmp_path, *asked)
    assert said.startswith(words)


def test_model_without_safetensors_is_refused(hub, tmp_path):
    (tmp_path / "model" / "model.safetensors").unlink()
    _, (said,) = fetch(hub, tmp_path)
    assert said.startswith("ModelUnusable 12 False: inference.preset.name: model acme/tiny at ")
    assert f"{REVISION}: has no .safetensors files; " in said


def test_a_cache_without_room_holds_no_server_up(hub, tmp_path):
    (tmp_path / "cache").write_text("as good as full")
    done = run(hub, tmp_path, "acme/tiny", REVISION, tmp_path / "scratch", tmp_path / "cache")
    assert done.stdout.startswith(str(tmp_path / "scratch"))
    assert f"The claim of the annotation kaito.sh/weights-cache lies at {tmp_path / 'cache'}: make it" in done.stderr


def test_what_others_have_fetched_is_told_without_a_rate(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    model = config.Model(id="acme/tiny", revision=REVISION)

    def load(place):
        (place / "config.json").write_text("{}")
        return place

    found = shared.fetch(model, tmp_path, load)
    assert weights.fetch(model, tmp_path / "scratch", tmp_path / "none", tmp_path) == found
    assert caplog.messages[-1].endswith(f"in the cache, {found}")
    assert "MiB/s" not in caplog.text


@pytest.mark.parametrize("place", ["models", "workspace/weights", ""])
def test_a_mounted_image_is_served_from_where_its_model_is(tmp_path, place):
    folder = tmp_path / place
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_text(name)
    model = config.Model(id="acme/own", revision="main", image="team.azurecr.io/own@sha256:1")
    assert weights.mounted(model, tmp_path) == folder
    (folder / "config.json").unlink()
    with pytest.raises(errors.Fatal, match=r"presetOptions.image: team.azurecr.io/own@sha256:1 has no"):
        weights.mounted(model, tmp_path)


def test_where_it_is_mounted_is_said_by_the_environment():
    assert settings.read({}).model_folder is None
    assert settings.read({"MODEL_FOLDER": "/mnt/model"}).model_folder == config.MODEL
