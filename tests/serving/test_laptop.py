"""`python -m serving MODEL`: what the command line means, and one server of it that answers."""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest
import requests

from serving import errors, laptop
from serving.config import Exit
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
    config, _ = laptop.understand(asked(str(files(tmp_path / "own-model"))))
    assert config.name == "own-model"


@pytest.mark.parametrize("lacks", ["config.json", ".safetensors files"])
def test_a_folder_without_a_model_is_refused_first_of_all(tmp_path, lacks):
    folder = files(tmp_path / "e")
    for file in folder.glob(f"*{lacks.partition(' ')[0]}"):
        file.unlink()
    done = say(str(folder))
    assert (done.returncode, done.stdout) == (Exit.BAD_MODEL, "")
    assert done.stderr.startswith(f"ERROR ModelUnusable: MODEL {folder}: has no {lacks};")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(("host", "family"), [("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)])
def test_a_port_that_is_taken_is_refused_before_the_model_is_loaded(tmp_path, host, family):
    with socket.create_server((host, 0), family=family) as other:
        port = other.getsockname()[1]
        done = say(str(files(tmp_path / "tiny")), "--host", host, "--port", str(port))
    assert done.returncode == Exit.BAD_CONFIG
    assert done.stderr == f"ERROR BadConfig: --port {port}: is taken; name another\n"


@pytest.mark.parametrize(
    ("host", "port", "told"),
    [
        ("127.0.0.1", 65536 + 5000, "--port 70536: is no port"),
        ("192.0.2.1", 5000, "--host 192.0.2.1 --port 5000: Cannot assign requested address"),
    ],
)
def test_an_address_that_cannot_be_had(host, port, told):
    with pytest.raises(errors.BadConfig) as refused, laptop.bound(host, port):
        pass
    assert told in str(refused.value)


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
def test_every_address_of_a_host_is_bound():
    with laptop.bound("", free_port()) as sockets:
        assert {each.family for each in sockets} == {socket.AF_INET, socket.AF_INET6}


@pytest.mark.parametrize("first", ["127.0.0.1", "192.0.2.1"])
def test_an_address_that_the_machine_lacks_is_passed_over(first):
    second = {"127.0.0.1": "192.0.2.1", "192.0.2.1": "127.0.0.1"}[first]
    places = [(socket.AF_INET, (first, 0)), (socket.AF_INET, (second, 0))]
    (made,) = laptop.listening(places)
    with made:
        assert made.getsockname()[0] == "127.0.0.1"


def files(folder):
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").touch()
    return folder


def say(*words):
    return subprocess.run([sys.executable, "-m", "serving", *words], capture_output=True, text=True, check=False)


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
        ("x" * 5000, (), "is no folder here, and no model that is known"),
        ("./gone", (), "MODEL ./gone: no such folder"),
        ("/gone", (), "MODEL /gone: no such folder"),
        ("~/gone", (), "MODEL ~/gone: no such folder"),
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
        told = running.communicate(timeout=120)[1].splitlines()
        assert running.returncode == 0
        loaded = next(index for index, line in enumerate(told) if "model loaded in" in line)
        page = next(index for index, line in enumerate(told) if line.startswith(f"http://127.0.0.1:{port}/ is a chat"))
        assert told[0] == f"loading {base}"
        assert page > loaded
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
