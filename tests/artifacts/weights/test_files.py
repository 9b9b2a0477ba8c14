"""A model's files wherever they come from: how much they are, and how much has come."""

import io

import pytest

from artifacts.weights import config, files, push
from tests.artifacts.weights.conftest import WEIGHTS
from tests.serving import modelhub

REVISION = "0123456789abcdef0123456789abcdef01234567"
MIB = 2**20


@pytest.fixture
def hub(files, monkeypatch):
    """A hub with one model."""
    with modelhub.running({"acme/tiny": (REVISION, files)}) as (hub, url):
        monkeypatch.setenv("HF_ENDPOINT", url)
        yield hub


def test_the_hub_says_how_many_bytes_will_come(hub, tmp_path):
    model = config.Model(id="acme/tiny", revision=REVISION)
    assert files.size(model, tmp_path / "none") == len(WEIGHTS) + 1000


@pytest.mark.parametrize("environment", [{"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:1"}])
def test_a_hub_that_says_nothing_leaves_it_open(hub, tmp_path, monkeypatch, environment):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert files.size(config.Model(id="acme/tiny", revision=REVISION), tmp_path / "none") == 0


def test_what_comes_from_the_hub_is_told_without_what_lies_beside_it(hub, tmp_path):
    models, told = tmp_path / "models", []
    (models / "models--acme--other").mkdir(parents=True)
    (models / "models--acme--other" / "blob").write_bytes(b"x" * 9 * MIB)
    model = config.Model(id="acme/tiny", revision=REVISION)
    found = files.fetch(model, tmp_path / "scratch", tmp_path / "none", told.append, models=models)
    assert (found / "model-00001-of-00002.safetensors").read_bytes() == WEIGHTS
    [words] = told
    assert words.startswith("fetched weights: 3.0 MiB in ")
    files.fetch(model, tmp_path / "scratch", tmp_path / "none", told.append, models=models)
    assert told[1:] == [f"found in {models}/models--acme--tiny, nothing was fetched"]


def test_an_image_says_so_too(model, auth, tmp_path, request):
    pushed = push.push(model, model.image, folder=request.getfixturevalue("files"), auth=auth, out=io.StringIO())
    named, told = model.model_copy(update={"image": pushed.image}), []
    assert len(WEIGHTS) < files.size(named, auth) < len(WEIGHTS) + MIB
    assert files.size(named, tmp_path / "none") == 0, "it is not for everybody"
    found = files.fetch(named, tmp_path / "scratch", auth, told.append)
    assert (found / "model-00001-of-00002.safetensors").read_bytes() == WEIGHTS
    assert told[0].startswith("fetched weights: 3.0 MiB in ")
