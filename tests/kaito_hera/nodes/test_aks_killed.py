"""Steps die: whatever was asked for before, asking again ends in one pool, or in none."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kaito_hera import nodes
from kaito_hera.nodes.aks import pool_name
from tests import making
from tests.kaito_hera.nodes.conftest import AZURE, WANT, order, world

PROGRAM = """
import sys
from kaito_hera import nodes
from kaito_hera.nodes.aks import AksProvider
from kaito_hera.settings import Azure
from tests import making

class Free:
    def acquire(self): return True
    def release(self): pass

provider = AksProvider(Azure.model_validate_json(sys.argv[2]), Free())
if sys.argv[1] == "order":
    want = nodes.wanted(making.parsed(making.inference()))
    provider.order(want, still_wanted=lambda: None, any_ready=lambda: False)
else:
    nodes.release(provider, making.UID, pause=0.02)
"""


class Executioner:
    """Kills a step when its n-th request was done and before it hears so."""

    def __init__(self):
        self.process = None
        self.left = 0

    def __call__(self, request):
        if self.process is None:
            return
        self.left -= 1
        if self.left == 0:
            self.process.kill()

    def run(self, verb, requests):
        """Whether the step was killed."""
        command = [sys.executable, "-c", PROGRAM, verb, AZURE.model_dump_json()]
        self.left = requests
        self.process = subprocess.Popen(command, cwd=Path(__file__).parents[3], env=os.environ, stderr=subprocess.PIPE)
        _, told = self.process.communicate(timeout=30)
        code, self.process = self.process.returncode, None
        assert code in {0, -signal.SIGKILL}, told.decode()
        return code != 0


@pytest.fixture
def executioner():
    return Executioner()


@pytest.fixture
def aks(tls, tmp_path, surroundings, executioner):
    with world(tls, tmp_path, answering=executioner) as found:
        surroundings(tls, tmp_path, found.wire)
        yield found


def test_killed_after_any_request_an_order_repeated_is_one_pool(aks, executioner):
    requests = 1
    while executioner.run("order", requests):
        order(aks.provider())
        aks.cloud.until(pool_name(WANT), "Succeeded")
        assert list(aks.pools()) == [pool_name(WANT)]
        assert len(aks.cloud.machines.on()) == 1
        nodes.release(aks.provider(), making.UID, pause=0.02)
        requests += 1
    assert requests > 3, "a login, a look and a write at least"


def test_killed_after_any_request_a_release_repeated_leaves_nothing(aks, executioner):
    requests = 1
    while True:
        order(aks.provider())
        killed = executioner.run("release", requests)
        nodes.release(aks.provider(), making.UID, pause=0.02)
        assert aks.pools() == {}
        assert aks.cloud.machines.on() == []
        if not killed:
            break
        requests += 1
    assert requests > 3, "a login, a list and a write at least"
