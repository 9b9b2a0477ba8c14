"""`make apiserver`: the API server that stays, for conformance suites and for people."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster import build, layout, standing

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("KAITO_HERA_STATE", str(tmp_path))
    yield layout.standing()
    standing.down()


def command(*arguments):
    """As make runs it. It returns, so nothing that stays holds its output open."""
    words = [sys.executable, "-m", "tests.cluster", "apiserver", *arguments]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120)


def kubectl(kubeconfig, *arguments):
    words = [str(build.binary("kubectl")), "--kubeconfig", kubeconfig, *arguments]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def test_it_stays_judges_and_goes(folder):
    first = command()
    kubeconfig = first.stdout.strip()
    assert "make apiserver-down" in first.stderr
    kubectl(kubeconfig, "create", "--dry-run=server", "-f", ROOT / "examples" / "inference-phi-3.yaml")

    before = standing.processes(folder)
    assert command().stdout.strip() == kubeconfig
    assert standing.processes(folder) == before

    command("--down")
    assert standing.processes(folder) == {}
    assert not folder.exists()


@pytest.mark.parametrize("killed", [["apiserver"], ["etcd"], ["apiserver", "etcd"]])
def test_it_recovers_from_a_kill_with_what_it_stored(folder, killed):
    kubeconfig = str(standing.up())
    kubectl(kubeconfig, "create", "secret", "generic", "kept", "--from-literal=a=b")
    for name in killed:
        os.kill(standing.processes(folder)[name], signal.SIGKILL)

    assert str(standing.up()) == kubeconfig
    assert len(standing.processes(folder)) == 2
    kubectl(kubeconfig, "get", "secret", "kept")


def test_a_number_that_the_kernel_gave_to_another_process_is_left_alone(folder):
    folder.mkdir(parents=True)
    (folder / "etcd.pid").write_text(str(os.getpid()))
    standing.down()
    assert not folder.exists()


def test_down_finds_nothing_to_do(folder):
    assert command("--down").stderr == ""
    assert not folder.exists()
