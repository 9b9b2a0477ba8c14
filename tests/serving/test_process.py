"""What surrounds the server in its process: settings, last words, the link, HAProxy's program, command line."""

import json
import os
import subprocess
import sys
import threading

import pytest

from serving import errors, haproxy, settings
from serving.config import Failure
from serving.link import Door, Link
from tests import terminations
from tests.serving import modelhub

FORBIDDEN = ("torch", "ray", "transformers", "peft", "fastapi")


def run(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "serving", *map(str, arguments)], capture_output=True, text=True, timeout=60,
        check=False, env=environment,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        pytest.param("serving.config", FORBIDDEN, id="the contract"),
        pytest.param("serving.check", FORBIDDEN, id="the check"),
        pytest.param("serving.inference_config", FORBIDDEN, id="the user's config"),
        pytest.param("serving.app", ("torch", "ray", "transformers"), id="the application"),
        pytest.param("serving.driver", ("torch", "ray", "transformers", "fastapi"), id="the driver"),
        pytest.param("serving.engine.protocol", FORBIDDEN, id="the engine's Protocol"),
    ],
)
def test_modules_stay_light(module, forbidden):
    code = f"import sys, {module}; print([name for name in {forbidden!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.torch
def test_engine_imports_neither_ray_nor_fastapi():
    code = "import sys, serving.engine.sequential; print([n for n in ('ray', 'fastapi', 'peft') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "[]"


def test_settings_have_the_pods_defaults():
    found = settings.read({})
    assert (str(found.scratch), str(found.registry_auth)) == ("/mnt/scratch", "/etc/kaito/registry/config.json")
    assert (str(found.termination_log), found.drain_seconds) == ("/dev/termination-log", 60.0)
    assert found.threads == settings.processors() >= 1


def test_bad_setting_names_itself():
    with pytest.raises(errors.BadConfig, match=r"DRAIN_SECONDS is 'soon'; it must be a number above 0"):
        settings.read({"DRAIN_SECONDS": "soon"})


def test_termination_message_fits_what_kubernetes_keeps(tmp_path):
    file = tmp_path / "log"
    errors.leave(errors.BadModel("ü" * 9000).failure(), file)
    assert file.stat().st_size <= 4096
    left = terminations.of_serving(file.read_text())
    assert (left.reason, left.retryable, left.message[-4:]) == ("BadModel", False, " ...")
    assert terminations.of_serving("") is None


def test_link_carries_both_ways_and_notices_death(tmp_path):
    door = Door(tmp_path / "link")
    replica = Link.connect(tmp_path / "link")
    driver = door.accept(5)
    replica.send(log="one line\nof two")
    assert next(driver.messages()) == {"log": "one line\nof two"}
    driver.send(drain=3)
    assert next(replica.messages()) == {"drain": 3}
    heard = []
    listening = threading.Thread(target=lambda: heard.extend(driver.messages()))
    listening.start()
    replica.close()
    listening.join(5)
    assert heard == []
    driver.send(drain=1)  # nobody there: nothing happens
    driver.close()
    with pytest.raises(OSError, match="refused"):
        Link.connect(tmp_path / "link")


def test_door_waits_no_longer_than_told(tmp_path):
    assert Door(tmp_path / "link").accept(0.05) is None


RAYS_LINES = """frontend prometheus
    bind :9101
frontend http_frontend
    bind 127.0.0.1:5000
listen stats
  bind *:8404
"""


@pytest.mark.parametrize(
    ("host", "line"), [("::", ":::5000 v4v6"), ("127.0.0.1", "127.0.0.1:5000"), ("::1", "[::1]:5000")]
)
def test_haproxy_is_open_on_one_port_only(tmp_path, host, line):
    environment = haproxy.environment(tmp_path, host=host, port=5000, binary="/bin/echo")
    config = tmp_path / "haproxy.cfg"
    config.write_text(RAYS_LINES)
    program = environment["RAY_SERVE_HAPROXY_BINARY_PATH"]
    done = subprocess.run([program, "-db", "-f", config, "-sf", "7"], capture_output=True, text=True, check=True)
    assert done.stdout == f"-db -f {config} -sf 7\n"
    binds = [text.strip() for text in config.read_text().splitlines() if "bind" in text]
    folder = str(tmp_path)
    assert binds == [
        f"bind unix@{folder}/metrics.sock mode 600", f"bind {line}", f"bind unix@{folder}/stats.sock mode 600",
    ]  # fmt: skip


@pytest.fixture
def config(tmp_path):
    model = {"id": "acme/tiny", "revision": "a" * 40}
    file = tmp_path / "serving.json"
    file.write_text(json.dumps({"workspace": "ns/w", "name": "tiny", "model": model}))
    return file


@pytest.mark.parametrize(
    ("token", "content", "words"),
    [
        pytest.param("", None, "RAY_AUTH_TOKEN is not set", id="no token"),
        pytest.param("secret", "{}", "is no serving config", id="bad config"),
    ],
)
def test_driver_refuses_what_cannot_work_before_it_starts_anything(tmp_path, config, token, content, words):
    if content:
        config.write_text(content)
    log = tmp_path / "termination"
    done = run(config, TERMINATION_LOG=log, RAY_AUTH_TOKEN=token, SCRATCH=tmp_path)
    assert done.returncode == 10
    left = terminations.of_serving(log.read_text())
    assert left == Failure(reason="BadConfig", message=left.message, retryable=False)
    assert words in left.message


def test_sigterm_does_not_wait_for_a_download(config, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_text(name)  # of one content, the hub's client would fetch only one
    with modelhub.running({"acme/tiny": ("a" * 40, folder)}) as (hub, url):
        hub.flows.clear()
        own = {
            "HF_ENDPOINT": url,
            "HF_HUB_DOWNLOAD_TIMEOUT": "600",
            "HOME": str(tmp_path),
            "RUN_FOLDER": str(tmp_path),
            "PATH": os.environ["PATH"],
        }
        own |= {"SCRATCH": str(tmp_path), "TERMINATION_LOG": str(tmp_path / "termination"), "RAY_AUTH_TOKEN": "secret"}
        driver = subprocess.Popen([sys.executable, "-m", "serving", str(config)], env=own)
        try:
            assert hub.waiting.wait(60)
            driver.terminate()
            assert driver.wait(60) == 0
        finally:
            driver.kill()
            driver.wait()
    assert not (tmp_path / "termination").exists()


def test_names_of_adapters_must_differ_before_anything_is_asked(config, tmp_path):
    images = [{"name": "poet", "image": f"127.0.0.1:1/poet:{tag}"} for tag in (1, 2)]
    config.with_name("adapters.json").write_text(json.dumps(images))
    log = tmp_path / "termination"
    done = run("--check", config, TERMINATION_LOG=log)
    left = terminations.of_serving(log.read_text())
    assert (done.returncode, left.reason, left.retryable) == (10, "BadConfig", False)
    assert "the name poet is listed twice; give each of inference.adapters a name of its own" in left.message


def test_check_without_adapters_is_content(config, tmp_path):
    done = run("--check", config, TERMINATION_LOG=tmp_path / "termination")
    assert (done.returncode, done.stdout) == (0, "")


def test_check_of_a_registry_that_is_not_there_is_retryable(config, tmp_path):
    image = {"name": "poet", "image": "127.0.0.1:1/poet:1"}
    config.with_name("adapters.json").write_text(json.dumps([image]))
    log = tmp_path / "termination"
    done = run("--check", config, TERMINATION_LOG=log, PATH="/usr/bin")
    left = terminations.of_serving(log.read_text())
    assert (done.returncode, left.reason, left.retryable) == (41, "RegistryUnavailable", True)
    assert left.message.startswith("inference.adapters[0].source.image: the registry of 127.0.0.1:1/poet:1 does not")
