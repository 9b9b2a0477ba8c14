"""`python -m serving MODEL`: what the command line means, and one server of it that answers."""

import os
import signal
import subprocess
import sys
import time

import pytest
import requests

from serving import errors, laptop
from tests.serving.registry import free_port

PHI = "microsoft/Phi-3-mini-4k-instruct"


def asked(model, *adapters):
    return laptop.Asked(model, adapters, "127.0.0.1", 5000, None, "auto")


def test_a_preset_is_served_at_its_pinned_revision():
    config, adapters = laptop.understand(asked("phi-3-mini-4k-instruct"))
    assert (config.name, config.model.id, adapters) == ("phi-3-mini-4k-instruct", PHI, ())
    assert len(config.model.revision) == 40


@pytest.mark.parametrize(
    ("text", "name", "revision"),
    [("acme/new", "acme/new", "main"), ("acme/new@dev", "acme/new", "dev"), (f"{PHI}@dev", None, "dev")],
)
def test_a_model_of_the_hub_may_name_a_revision(text, name, revision):
    config, _ = laptop.understand(asked(text))
    assert config.model.revision == revision
    assert name in (None, config.name)


def test_a_folder_is_called_by_its_name(tmp_path):
    (tmp_path / "own-model").mkdir()
    config, _ = laptop.understand(asked(str(tmp_path / "own-model")))
    assert config.name == "own-model"


@pytest.mark.parametrize(
    ("text", "image", "strength"),
    [
        ("a=r.io/team/a:1", "r.io/team/a:1", 1.0),
        ("a=r.io:5000/team/a:1:0.25", "r.io:5000/team/a:1", 0.25),
        ("a=r.io/team/a", "r.io/team/a", 1.0),
    ],
)
def test_an_adapter_of_an_image(text, image, strength):
    found = laptop.adapter(text)
    assert (found.name, found.image, found.strength) == ("a", image, strength)


@pytest.mark.parametrize(("behind", "strength"), [("", 1.0), (":0.5", 0.5), (":0", 0.0)])
def test_an_adapter_of_a_folder(tmp_path, behind, strength):
    found = laptop.adapter(f"a={tmp_path}{behind}")
    assert (found.folder, found.strength) == (str(tmp_path), strength)


@pytest.mark.parametrize(
    ("model", "adapters", "told"),
    [
        ("./gone", (), "MODEL ./gone is no folder here"),
        ("phi-3-mini-4k", (), "phi-3-mini-4k-instruct"),
        ("acme/new", ("poet",), "--adapter poet: write NAME=FOLDER"),
        ("acme/new", ("a=./gone",), "--adapter a=./gone: there is no folder ./gone"),
        ("acme/new", ("a=r/a:1", "a=r/b:1"), "the name a is listed twice"),
        ("acme/new", ("a=r/a:1:7",), "strength: Input should be less than or equal to 1, found '7.0'"),
    ],
)
def test_what_cannot_be_understood_is_told(model, adapters, told):
    with pytest.raises(errors.BadConfig) as refused:
        laptop.understand(asked(model, *adapters))
    assert told in str(refused.value)


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
def test_a_folder_with_an_adapter_answers_and_ends_at_ctrl_c(tmp_path):
    from tests.serving import tiny

    base, port = tiny.checkpoint(tmp_path / "model"), free_port()
    poet = tiny.adapter(tmp_path / "poet", base, 1)
    command = [sys.executable, "-m", "serving", str(base), f"--adapter=poet={poet}:0.5", f"--port={port}"]
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    running = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        _await_health(running, port)
        ask = {"prompt": "<|user|>hi", "return_full_text": False, "generate_kwargs": {"do_sample": False}}
        ask["generate_kwargs"] |= {"max_new_tokens": 8, "min_new_tokens": 8}
        found = requests.post(f"http://127.0.0.1:{port}/chat", json=ask, timeout=60).json()["Result"]
        own = tiny.tokenizer()
        reference = tiny.merged(base, {"poet": poet}, {"poet": 0.5})
        tokens = reference_tokens(reference, own.encode("<|user|>hi"))
        assert found == own.decode(tokens, skip_special_tokens=True)
        running.send_signal(signal.SIGINT)
        assert running.wait(120) == 0
    finally:
        running.kill()
        running.communicate()


def reference_tokens(model, prompt):
    import torch

    ids = torch.tensor([prompt])
    with torch.inference_mode():
        output = model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=8, min_new_tokens=8,
            pad_token_id=0,
        )  # fmt: skip
    return output[0, len(prompt) :].tolist()


def _await_health(running, port):
    ends = time.monotonic() + 120
    while time.monotonic() < ends:
        assert running.poll() is None, running.stderr.read()
        try:
            if requests.get(f"http://127.0.0.1:{port}/health", timeout=5).status_code == 200:
                return
        except requests.ConnectionError:
            time.sleep(0.1)
    raise AssertionError("no health")
