"""`make apiserver`: the API server that stays, for conformance suites and for people."""

import os
import signal
import subprocess
import sys

import pytest

from tests.apiserver.conftest import ROOT, until
from tests.cluster import build, layout, standing


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where it stands: one for all tests here, each of which takes it as it finds it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KAITO_HERA_STATE", str(tmp_path_factory.mktemp("standing")))
        yield layout.standing()
        standing.down()


def command(*arguments):
    """As make runs it. It returns, so nothing that stays holds its output open."""
    words = [sys.executable, "-m", "tests.cluster", "apiserver", *arguments]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120)


def kubectl(kubeconfig, *arguments):
    words = [str(build.binary("kubectl")), "--kubeconfig", kubeconfig, *arguments]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def test_it_stays_and_judges(folder):
    standing.down()
    first = command()
    kubeconfig = first.stdout.strip()
    assert "make apiserver-down" in first.stderr
    kubectl(kubeconfig, "create", "--dry-run=server", "-f", ROOT / "examples" / "inference-phi-3.yaml")

    before = standing.processes(folder)
    assert command().stdout.strip() == kubeconfig
    assert standing.processes(folder) == before


@pytest.mark.parametrize("killed", [["apiserver"], ["etcd"], ["apiserver", "etcd"]])
def test_it_recovers_from_a_kill_with_what_it_stored(folder, killed):
    kubeconfig = str(standing.up())
    name = f"kept-{'-'.join(killed)}"
    kubectl(kubeconfig, "create", "secret", "generic", name, "--from-literal=a=b")
    for process in killed:
        os.kill(standing.processes(folder)[process], signal.SIGKILL)
    until(lambda: not standing.processes(folder).keys() & set(killed), what="their end")

    assert str(standing.up()) == kubeconfig
    assert len(standing.processes(folder)) == 2
    kubectl(kubeconfig, "get", "secret", name)


def test_it_goes(folder):
    standing.up()
    command("--down")
    assert standing.processes(folder) == {}
    assert not folder.exists()


def test_a_number_that_the_kernel_gave_to_another_process_is_left_alone(folder):
    standing.down()
    folder.mkdir(parents=True)
    (folder / "etcd.pid").write_text(str(os.getpid()))
    standing.down()
    assert not folder.exists()


def test_down_finds_nothing_to_do(folder):
    standing.down()
    assert command("--down").stderr == ""
    assert not folder.exists()
