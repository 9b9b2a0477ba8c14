"""Azure's SDK against agent pools: what is accepted, what becomes of it, what is refused and in which words."""

import pytest
import requests
from azure.core import MatchConditions
from azure.core.exceptions import (
    HttpResponseError,
    ResourceExistsError,
    ResourceModifiedError,
    ResourceNotFoundError,
)
from azure.core.rest import HttpRequest

from tests.simulators import azure, paper
from tests.simulators.azure import A100, V100, WHERE

NODE = "aks-g1-12345678-vmss00000"


@pytest.fixture
def cloud(tls, tmp_path):
    with azure.simulated(tls, tmp_path) as running:
        yield running


def ask(cloud, path):
    return cloud.client.send_request(HttpRequest("GET", f"/subscriptions/{azure.ACCOUNT.subscription}/{path}")).json()


def test_a_pool_becomes_nodes_and_goes_with_them(cloud):
    cloud.machines.joining.clear()
    accepted = cloud.put("g1", count=2, nodeLabels={"team": "red"}, nodeTaints=["sku=gpu:NoSchedule"])
    assert (accepted.provisioning_state, accepted.count) == ("Creating", 2)
    paper.until(lambda: len(cloud.machines.on()) == 2, "two machines")
    assert cloud.state_of("g1") == "Creating"  # until they have joined
    cloud.machines.joining.set()
    cloud.until("g1", "Succeeded")
    assert cloud.machines.on() == [f"{NODE}0", f"{NODE}1"]
    cloud.delete("g1")
    cloud.until("g1", "gone")
    assert cloud.machines.on() == []
    with pytest.raises(ResourceNotFoundError, match="Agent Pool not found"):
        cloud.get("g1")


def test_a_node_carries_what_aks_puts_on_it(cloud):
    cloud.put("g1", nodeLabels={"kaito.sh/workspace": "w"}, nodeTaints=["sku=gpu:NoSchedule"], scaleSetPriority="Spot")
    cloud.until("g1", "Succeeded")
    about = cloud.machines.about(f"{NODE}0")
    assert about["labels"] == {
        "agentpool": "g1",
        "kubernetes.azure.com/agentpool": "g1",
        "kubernetes.azure.com/accelerator": "nvidia",
        "kubernetes.azure.com/cluster": "MC_kaito-hera_kaito-hera_eastus",
        "kubernetes.azure.com/mode": "user",
        "kubernetes.azure.com/os-sku": "Ubuntu",
        "kubernetes.azure.com/role": "agent",
        "kubernetes.azure.com/scalesetpriority": "spot",
        "accelerator": "nvidia",
        "node.kubernetes.io/instance-type": V100,
        "topology.kubernetes.io/region": "eastus",
        "kaito.sh/workspace": "w",
    }
    assert about["taints"] == ["sku=gpu:NoSchedule", "kubernetes.azure.com/scalesetpriority=spot:NoSchedule"]
    assert (about["instance_type"], about["gpus"]) == (V100, 1)
    assert about["provider_id"].endswith("/virtualMachineScaleSets/aks-g1-12345678-vmss/virtualMachines/0")


def test_the_sdks_pollers_see_an_operation_end(cloud):
    body = {"properties": {"count": 1, "vmSize": V100}}
    made = cloud.pools.begin_create_or_update(*WHERE, "g1", body).result()
    assert made.provisioning_state == "Succeeded"
    cloud.pools.begin_delete(*WHERE, "g1").result()
    assert cloud.state_of("g1") == "gone"
    cloud.delete("g1")  # again: nothing to do is no error


def test_asking_again_changes_nothing(cloud):
    cloud.put("g1")
    cloud.until("g1", "Succeeded")
    before = cloud.get("g1").e_tag
    assert cloud.put("g1").e_tag == before
    with pytest.raises(ResourceExistsError) as exists:
        cloud.put("g1", match_condition=MatchConditions.IfMissing)
    assert exists.value.status_code == 412
    with pytest.raises(ResourceModifiedError):
        cloud.put("g1", count=2, etag="older", match_condition=MatchConditions.IfNotModified)
    with pytest.raises(ResourceModifiedError):
        cloud.delete("g1", etag="older", match_condition=MatchConditions.IfNotModified)
    assert [verb for verb, _ in cloud.machines.calls] == ["boot"]
    cloud.put("g1", count=2, etag=before, match_condition=MatchConditions.IfNotModified)
    cloud.until("g1", "Succeeded")
    assert cloud.get("g1").e_tag != before


def test_a_pool_grows_shrinks_and_gets_other_labels(cloud):
    cloud.put("g1", nodeLabels={"team": "red", "old": "yes"})
    cloud.until("g1", "Succeeded")
    assert cloud.put("g1", count=3).provisioning_state == "Scaling"
    cloud.until("g1", "Succeeded")
    assert cloud.machines.on() == [f"{NODE}0", f"{NODE}1", f"{NODE}2"]
    cloud.put("g1", count=1, nodeLabels={"team": "blue"})
    cloud.until("g1", "Succeeded")
    assert cloud.machines.on() == [f"{NODE}0"]
    labels = cloud.machines.about(f"{NODE}0")["labels"]
    assert (labels["team"], "old" in labels) == ("blue", False)
    cloud.put("g1", count=2)
    cloud.until("g1", "Succeeded")
    assert cloud.machines.on() == [f"{NODE}0", f"{NODE}3"]  # a number is not given twice


def test_a_delete_preempts_a_pool_that_is_being_made(cloud):
    cloud.machines.gate.clear()
    poller = cloud.pools.begin_create_or_update(*WHERE, "g1", {"properties": {"count": 3, "vmSize": V100}})
    paper.until(cloud.machines.on, "the first machine to start")
    cloud.delete("g1")
    assert cloud.state_of("g1") == "Deleting"
    cloud.machines.gate.set()
    cloud.until("g1", "gone")
    assert cloud.machines.on() == []
    assert [verb for verb, _ in cloud.machines.calls].count("boot") == 1
    with pytest.raises(HttpResponseError) as preempted:
        poller.result()
    assert preempted.value.error.code == "AKSOperationPreemptedByDelete"


def test_a_second_operation_finds_the_pool_busy(cloud):
    cloud.machines.joining.clear()
    cloud.put("g1")
    with pytest.raises(ResourceExistsError, match=r"Another agentpool operation \(g1 - Creating\) is in progress"):
        cloud.put("g1", count=2)
    cloud.machines.gate.clear()
    cloud.scenario("slow", method="DELETE", delay=60)
    cloud.delete("g1")
    for again in (lambda: cloud.delete("g1"), lambda: cloud.put("g1")):
        with pytest.raises(ResourceExistsError, match=r"Another agentpool operation \(g1 - Deleting\)"):
            again()


def test_an_aborted_pool_keeps_its_machines_until_it_is_deleted(cloud):
    cloud.machines.joining.clear()
    cloud.put("g1")
    paper.until(cloud.machines.on, "the machine to start")
    cloud.pools.begin_abort_latest_operation(*WHERE, "g1").result()
    assert cloud.state_of("g1") == "Canceled"
    with pytest.raises(ResourceExistsError, match="no operation that could be aborted"):
        cloud.pools.begin_abort_latest_operation(*WHERE, "g1")
    assert cloud.machines.on() == [f"{NODE}0"]
    cloud.delete("g1")
    cloud.until("g1", "gone")
    assert cloud.machines.on() == []


def test_a_pool_whose_machine_does_not_start_fails_and_says_why(cloud):
    cloud.machines.broken["boot"] = RuntimeError("no room for node")
    cloud.put("g1")
    cloud.until("g1", "Failed")
    error = cloud.get("g1").status.provisioning_error
    assert (error.code, error.details[0].code) == ("CreateVMSSAgentPoolFailed", "AllocationFailed")
    assert "no room for node" in error.details[0].message
    cloud.machines.broken.clear()
    cloud.put("g1")  # a failed pool may be asked for again
    cloud.until("g1", "Succeeded")


def test_a_machine_that_never_joins_fails_its_pool(tls, tmp_path):
    with azure.simulated(tls, tmp_path, join_seconds=0.2) as cloud:
        cloud.machines.joining.clear()
        cloud.put("g1")
        cloud.until("g1", "Failed")
        assert "did not become Ready" in cloud.get("g1").status.provisioning_error.details[0].message


def test_an_api_server_that_is_away_for_a_while_fails_no_pool(cloud):
    cloud.machines.broken["joined"] = RuntimeError("connection refused")
    cloud.put("g1")
    paper.until(cloud.machines.on, "the machine to start")
    assert cloud.state_of("g1") == "Creating"
    cloud.machines.broken.clear()
    cloud.until("g1", "Succeeded")


def test_a_removal_that_fails_is_tried_until_it_works(cloud):
    cloud.put("g1")
    cloud.until("g1", "Succeeded")
    cloud.machines.broken["remove"] = RuntimeError("busy")
    cloud.delete("g1")
    paper.until(lambda: cloud.machines.calls[-1][0] == "remove", "a first try")
    assert cloud.state_of("g1") == "Deleting"
    cloud.machines.broken.clear()
    cloud.until("g1", "gone")
    assert cloud.machines.on() == []


@pytest.mark.parametrize(
    ("name", "more", "seen"),
    [
        pytest.param("Bad-Name", {}, "'Bad-Name'", id="name"),
        pytest.param("g123456789012", {}, "'g123456789012'", id="a long name"),
        pytest.param("g1", {"size": ""}, "vmSize", id="no size"),
        pytest.param("g1", {"size": "Standard_NC1_v9"}, "VM size of Standard_NC1_v9 is not allowed", id="unknown size"),
        pytest.param("g1", {"count": 1001}, "1001", id="count"),
        pytest.param("g1", {"nodeLabels": {"kubernetes.azure.com/mode": "x"}}, "reserved prefix", id="reserved label"),
        pytest.param("g1", {"nodeLabels": {"team": "a b"}}, "team=a b", id="label value"),
        pytest.param("g1", {"nodeTaints": ["sku=gpu"]}, "'sku=gpu'", id="taint"),
    ],
)
def test_a_pool_against_the_rules_is_refused(cloud, name, more, seen):
    with pytest.raises(HttpResponseError, match=seen) as refused:
        cloud.put(name, **more)
    assert refused.value.status_code == 400
    assert cloud.state_of(name) == "gone"


def test_what_cannot_change_is_named(cloud):
    cloud.put("g1", nodeTaints=["sku=gpu:NoSchedule"])
    cloud.until("g1", "Succeeded")
    for more in ({"size": A100}, {"nodeTaints": []}):
        with pytest.raises(HttpResponseError, match=r"Changing property 'properties\.(vmSize|nodeTaints)'") as refused:
            cloud.put("g1", **more)
        assert refused.value.error.code == "PropertyChangeNotAllowed"


def test_the_system_pool_stays(cloud):
    with pytest.raises(HttpResponseError, match="at least one system agent pool"):
        cloud.delete("nodepool1")
    cluster = cloud.client.managed_clusters.get(*WHERE)
    assert (cluster.provisioning_state, cluster.agent_pool_profiles[0].name) == ("Succeeded", "nodepool1")


def test_a_list_comes_in_pages(cloud):
    cloud.limits(pageSize=2)
    for name in ("g1", "g2", "g3"):
        cloud.put(name)
    assert [pool.name for pool in cloud.pools.list(*WHERE)] == ["g1", "g2", "g3", "nodepool1"]
    lists = [line for line in cloud.requests() if line["method"] == "GET" and "/agentPools?" in line["path"]]
    assert len(lists) == 2


@pytest.mark.parametrize(
    ("where", "code"),
    [
        (("another", azure.ACCOUNT.aks), "ResourceGroupNotFound"),
        ((azure.ACCOUNT.resource_group, "another"), "ResourceNotFound"),
        (tuple(name.upper() for name in WHERE), None),
    ],
)
def test_the_cluster_is_found_by_its_names_whatever_their_case(cloud, where, code):
    if code is None:
        assert list(cloud.pools.list(*where))
        return
    with pytest.raises(ResourceNotFoundError) as missing:
        list(cloud.pools.list(*where))
    assert missing.value.error.code == code


def test_quota_counts_what_is_there(cloud):
    cloud.limits(quota={"standardNCSv3Family": 12, "cores": 100}, used={"standardNCSv3Family": 5})
    cloud.put("g1")
    path = "providers/Microsoft.Compute/locations/eastus/usages?api-version=2024-07-01"
    usages = {one["name"]["value"]: (one["currentValue"], one["limit"]) for one in ask(cloud, path)["value"]}
    assert usages["standardNCSv3Family"] == (11, 12)
    assert usages["cores"] == (10, 100)  # 6 and the system pool's 4
    with pytest.raises(HttpResponseError, match="Insufficient vcpu quota requested 6, remaining 1") as refused:
        cloud.put("g2")
    assert (refused.value.status_code, refused.value.error.code) == (400, "ErrCode_InsufficientVCPUQuota")


@pytest.mark.parametrize(
    ("quota", "more", "seen"),
    [
        ({"cores": 8}, {}, "left regional vcpu quota 4, requested quota 6"),
        ({"lowPriorityCores": 0}, {"scaleSetPriority": "Spot"}, "LowPriorityCores quota.*Current Limit: 0"),
    ],
)
def test_other_quotas_have_other_words(cloud, quota, more, seen):
    cloud.limits(quota=quota)
    with pytest.raises(HttpResponseError, match=seen):
        cloud.put("g1", **more)


def test_sizes_are_listed_with_their_restrictions(cloud):
    cloud.limits(notOffered=[V100])
    listed = {size["name"]: size for size in ask(cloud, "providers/Microsoft.Compute/skus?api-version=1")["value"]}
    assert listed[A100]["restrictions"] == []
    assert listed[V100]["restrictions"][0]["reasonCode"] == "NotAvailableForSubscription"
    assert {"name": "GPUs", "value": "1"} in listed[A100]["capabilities"]
    with pytest.raises(HttpResponseError, match=f"The VM size of {V100} is not allowed in your subscription"):
        cloud.put("g1")


def test_answers_carry_the_ids_that_support_asks_for(cloud, tls):
    answer = requests.get(f"{cloud.url}/subscriptions/x", verify=tls.ca, timeout=10)
    assert answer.headers["x-ms-request-id"] != answer.headers["x-ms-correlation-request-id"]
