"""Scripted failures, capacity, and processes that die: whatever was accepted is finished, and no machine is lost."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import requests
from azure.core.exceptions import HttpResponseError, ResourceExistsError
from azure.core.rest import HttpRequest

from tests.simulators import azure, paper
from tests.simulators.azure import A100, V100, WHERE


@pytest.fixture
def cloud(tls, tmp_path):
    with azure.simulated(tls, tmp_path) as running:
        yield running


def test_a_scripted_answer_comes_so_often_and_no_more(cloud):
    busy = {"status": 409, "code": "OperationNotAllowed", "message": "Another operation (Updating) is in progress"}
    cloud.scenario("busy", times=2, answer=busy)
    for _ in range(2):
        with pytest.raises(ResourceExistsError, match="Another operation"):
            cloud.put("g1")
    cloud.put("g1")
    assert not list((cloud.state / "scenarios").iterdir())


def test_scenarios_are_chosen_by_pool_size_and_path(cloud):
    refusal = {"status": 400, "code": "ErrCode_InsufficientVCPUQuota", "message": "none left", "flat": True}
    cloud.scenario("1", vmSize=A100.lower(), answer=refusal)
    cloud.scenario("2", pool="x.*", answer={**refusal, "code": "BadRequest"})
    cloud.scenario("3", method="GET", path="/usages", answer={"status": 403, "code": "AuthorizationFailed"})
    with pytest.raises(HttpResponseError) as refused:
        cloud.put("g1", size=A100)
    assert (refused.value.status_code, refused.value.error.code) == (400, "ErrCode_InsufficientVCPUQuota")
    with pytest.raises(HttpResponseError) as refused:
        cloud.put("x1")
    assert refused.value.error.code == "BadRequest"
    cloud.put("g1")
    path = f"/subscriptions/{azure.ACCOUNT.subscription}/providers/Microsoft.Compute/locations/eastus/usages"
    answer = cloud.client.send_request(HttpRequest("GET", f"{path}?api-version=1"))
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "AuthorizationFailed")


def test_the_sdk_waits_when_it_is_throttled(cloud):
    cloud.scenario("slow", times=2, answer={"status": 429, "code": "Throttled", "message": "", "retryAfter": 0})
    cloud.put("g1")
    assert [line["status"] for line in cloud.requests() if line["method"] == "PUT"] == [429, 429, 201]


def test_an_accepted_pool_may_fail_later(cloud):
    cause = {"code": "ZonalAllocationFailed", "message": "no capacity in this zone"}
    fail = {"code": "ReconcileVMSSAgentPoolFailed", "message": "see details", "details": [cause], "afterNodes": 1}
    cloud.scenario("late", fail=fail)
    body = {"properties": {"count": 2, "vmSize": V100}}
    poller = cloud.pools.begin_create_or_update(*WHERE, "g1", body)
    with pytest.raises(HttpResponseError) as failed:
        poller.result()
    assert failed.value.error.details[0].code == "ZonalAllocationFailed"
    pool = cloud.get("g1")
    assert (pool.provisioning_state, pool.status.provisioning_error.code) == ("Failed", "ReconcileVMSSAgentPoolFailed")
    cloud.delete("g1")
    cloud.until("g1", "gone")
    assert cloud.machines.on() == []


def test_a_delay_can_be_cut_short_by_a_delete(cloud):
    cloud.scenario("slow", delay=60)
    cloud.put("g1")
    assert cloud.state_of("g1") == "Creating"
    cloud.delete("g1")
    cloud.until("g1", "gone")
    assert cloud.machines.calls == []


def test_machines_run_out(cloud):
    cloud.limits(capacity={V100: 2})
    cloud.put("g1")
    cloud.put("g2", count=2)
    cloud.until("g1", "Succeeded")
    cloud.until("g2", "Failed")
    assert cloud.get("g2").status.provisioning_error.details[0].code == "AllocationFailed"
    cloud.delete("g2")
    cloud.until("g2", "gone")
    cloud.put("g3")
    cloud.until("g3", "Succeeded")


def test_a_busy_or_stopped_cluster_shows_it(cloud):
    cloud.limits(busy="Upgrading", power="Stopped")
    for write in (lambda: cloud.put("g1"), lambda: cloud.put("g2")):
        with pytest.raises(ResourceExistsError, match=r"Another operation \(Upgrading\) is in progress"):
            write()
    cluster = cloud.client.managed_clusters.get(*WHERE)
    assert (cluster.provisioning_state, cluster.power_state.code) == ("Upgrading", "Stopped")


@pytest.mark.parametrize("content", ['{"tiems": 1}', "{"])
def test_a_scenario_that_is_not_understood_says_so(cloud, tls, content):
    (cloud.state / "scenarios" / "slip.json").write_text(content)
    url = f"{cloud.url}{azure.ACCOUNT.cluster_id}?api-version=1"
    token = {"Authorization": f"Bearer {azure.Bearer(cloud.state).get_token().token}"}
    answer = requests.get(url, headers=token, verify=tls.ca, timeout=10)
    assert answer.status_code == 500
    assert "slip.json is not understood" in answer.json()["error"]


def test_the_next_process_finishes_what_was_accepted(tls, tmp_path):
    with azure.simulated(tls, tmp_path) as first:
        first.put("g0")
        first.until("g0", "Succeeded")
        first.machines.joining.clear()
        headers = {}
        first.pools.begin_create_or_update(
            *WHERE,
            "g1",
            {"properties": {"count": 2, "vmSize": V100}},
            polling=False,
            raw_response_hook=lambda answer: headers.update(answer.http_response.headers),
        )
        paper.until(lambda: len(first.machines.on()) == 3, "the machines to start")
    with azure.simulated(tls, tmp_path) as second:
        second.until("g1", "Succeeded")
        assert second.state_of("g0") == "Succeeded"
        assert len(second.machines.on()) == 3
        assert ("boot", "aks-g0-12345678-vmss000000") not in second.machines.calls
        path = headers["Azure-AsyncOperation"].removeprefix(first.url)
        told = second.client.send_request(HttpRequest("GET", path)).json()
        assert told["status"] == "Succeeded"  # a client of the first process may still ask
        second.delete("g0")
    with azure.simulated(tls, tmp_path) as third:
        third.until("g0", "gone")
        assert len(third.machines.on()) == 2


PROCESS = """
import sys, time
from pathlib import Path
from tests.cluster.simulators import web
from tests.cluster.simulators.azure.cloud import Cloud
from tests.simulators import azure, paper
folder, cert, key, port = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])

class Slow(paper.Machines):
    def boot(self, machine):
        time.sleep(0.1)
        super().boot(machine)
        time.sleep(0.1)

machines = Slow(folder / "machines")
cloud = Cloud(folder / "state", azure.ACCOUNT, machines, verifier=azure.Unasked(), subjects=set())
cloud.start()
web.run(("127.0.0.1", port), cert, key, handle=cloud.handle, log=cloud.log)
"""


class Process:
    """The simulator as a process of its own, to be killed."""

    def __init__(self, tls, folder, port=0):
        command = [sys.executable, "-c", PROCESS, folder, tls.cert, tls.key, str(port)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
        self.port = int(self.process.stdout.readline().rpartition(":")[2])

    def end(self, number):
        self.process.send_signal(number)
        self.process.stdout.close()
        return self.process.wait(10)


def test_kill_minus_nine_loses_no_machine(tls, tmp_path):
    """Killed at one moment after another while it makes one pool and unmakes another."""
    for attempt, seconds in enumerate((0.0, 0.05, 0.12, 0.2, 0.27, 0.35)):
        process = Process(tls, tmp_path)
        client = azure.client_of(tls, tmp_path / "state", process.port)
        with client:
            made, unmade = f"g{attempt}", f"g{attempt - 1}"
            body = {"properties": {"count": 2, "vmSize": V100}}
            client.agent_pools.begin_create_or_update(*WHERE, made, body, polling=False)
            client.agent_pools.begin_delete(*WHERE, unmade, polling=False)
        time.sleep(seconds)
        assert process.end(signal.SIGKILL) == -signal.SIGKILL
    with azure.simulated(tls, tmp_path) as cloud:
        cloud.until("g5", "Succeeded")
        for gone in ("g0", "g1", "g2", "g3", "g4"):
            cloud.until(gone, "gone")
        assert cloud.machines.on() == ["aks-g5-12345678-vmss000000", "aks-g5-12345678-vmss000001"]


def test_the_command_ends_on_sigterm(tls, tmp_path):
    assert Process(tls, tmp_path).end(signal.SIGTERM) == 0
