import contextlib
import json
import re
import socket
import time
import urllib.error
import urllib.request

import pytest

from tuning import machine, metrics
from tuning.config import Progress

PROMETHEUS = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1"
LINE = re.compile(r'(# (HELP|TYPE) kaito_hera_tuning_\w+ .+|kaito_hera_tuning_\w+(\{phase="\w+"\})? [-+0-9.e]+)')


@pytest.fixture
def figures():
    return metrics.Metrics()


@pytest.fixture
def port(figures):
    with metrics.served(figures, free()) as port:
        yield port


def free():
    with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
        probe.bind(("::", 0))
        return probe.getsockname()[1]


def ask(port, path="/metrics", accept=None, host="127.0.0.1"):
    request = urllib.request.Request(f"http://{host}:{port}{path}", headers={"Accept": accept} if accept else {})
    with contextlib.closing(urllib.request.urlopen(request, timeout=20)) as answer:
        return answer.headers["Content-Type"], answer.read().decode()


def values(text):
    return dict(line.removeprefix("kaito_hera_tuning_").rsplit(" ", 1) for line in text.splitlines() if line[0] != "#")


def test_prometheus_is_told_what_is_known(figures, port):
    told = {"loss": 1.25, "learning_rate": 2e-4, "grad_norm": 0.7, "tokens": 900, "gpu_memory_gib": 0.5}
    figures(Progress(phase="train", percent=40, step=7, max_steps=20, **told))
    figures(Progress(phase="train", percent=40, step=7, max_steps=20, eval_loss=1.5))
    kind, text = ask(port, accept=PROMETHEUS)
    assert kind.startswith("text/plain; version=0.0.4")
    assert all(LINE.fullmatch(line) for line in text.splitlines())
    found = {name: float(value) for name, value in values(text).items()}
    assert found.items() >= {"step": 7, "loss": 1.25, "eval_loss": 1.5, "learning_rate": 2e-4, "grad_norm": 0.7}.items()
    assert (found["tokens_total"], found["gpu_memory_bytes"], found["progress_ratio"]) == (900, 2**29, 0.4)
    assert [found[f'phase{{phase="{phase}"}}'] for phase in ("fetch", "load", "train", "push")] == [0, 0, 1, 0]


def test_what_is_not_known_is_not_told(port):
    assert "loss" not in values(ask(port, "/metrics?format=prometheus")[1])


@pytest.mark.parametrize("accept", [None, "*/*", "application/json"])
def test_others_are_told_of_the_machine_as_kaito_does(port, accept):
    kind, text = ask(port, accept=accept)
    found = json.loads(text)
    assert kind == "application/json"
    assert list(found) == ["gpu_info", "cpu_info"]
    if found["gpu_info"]:
        assert {tuple(gpu) for gpu in found["gpu_info"]} == {("id", "name", "load", "temperature", "memory")}
    else:
        told = found["cpu_info"]
        assert list(told) == ["load_percentage", "physical_cores", "total_cores", "memory"]
        assert 0 <= told["load_percentage"] <= 100
        assert 1 <= told["physical_cores"] <= told["total_cores"]
        used, total = (float(told["memory"][name].removesuffix(" GB")) for name in ("used", "total"))
        assert 0 < used < total


def test_gpus_are_told_in_kaito_s_words():
    text = "0, NVIDIA A10, 25, 55, 1024, 23028\n1, NVIDIA A100 MIG 1g.5gb, [N/A], 40, 0, [N/A]\nNo devices\n"
    first, second = machine.of_csv(text)
    assert first == {
        "id": "0",
        "name": "NVIDIA A10",
        "load": "25.00%",
        "temperature": "55.0 C",
        "memory": {"used": "1.00 GB", "total": "22.49 GB"},
    }
    assert (second["load"], second["memory"]["total"]) == ("0.00%", "0.00 GB")


def test_health_and_what_is_not_there(port):
    assert json.loads(ask(port, "/health")[1]) == {"status": "ok"}
    with pytest.raises(urllib.error.HTTPError, match="404"):
        ask(port, "/docs")


def test_it_answers_on_both_families_of_addresses(port):
    assert ask(port, "/health", host="[::1]") == ask(port, "/health", host="127.0.0.1")


def test_a_port_that_is_taken_is_a_warning(figures, port, caplog):
    with metrics.served(figures, port) as taken:
        assert taken == 0
    assert f"no figures on port {port}" in caplog.text


def test_a_silent_client_is_not_waited_for(port):
    with contextlib.closing(socket.create_connection(("127.0.0.1", port))) as silent:
        assert ask(port, "/health")[1]
        silent.settimeout(30)
        assert silent.recv(1) == b""  # hung up on


def test_what_is_asked_does_not_keep_whoever_tells_waiting(figures, port):
    with contextlib.closing(socket.create_connection(("127.0.0.1", port))):  # the one thread is busy with it
        time.sleep(0.1)
        for step in range(1000):
            figures(Progress(phase="train", percent=40, step=step))
        assert values(figures.text())["step"] == "999"
