"""A checkpoint out of a registry, pushed by the command's code, fetched and loaded by the server's."""

import io

import pytest

from artifacts.weights import push
from artifacts.weights.config import Model
from serving import weights
from serving.engine import loading
from tests.serving import registry, tiny

pytestmark = pytest.mark.torch


def test_a_model_that_was_pushed_is_served_as_it_was(tmp_path):
    made = tiny.checkpoint(tmp_path / "model")
    with registry.running(tmp_path / "registry") as host:
        model = Model(id="acme/tiny", revision="main")
        done = push.push(model, f"{host}/models/tiny:1", folder=made, out=io.StringIO())
        pulled = weights.fetch(model.model_copy(update={"image": done.image}), tmp_path / "scratch", tmp_path / "none")
    assert pulled != made
    prompt = [5, 6, 7, 8]
    assert tiny.greedy(loading.load_model(pulled, threads=1), prompt, 8) == tiny.greedy(tiny.model(made), prompt, 8)
