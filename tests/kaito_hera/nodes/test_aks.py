"""The provider with Azure's own SDK: what it asks for, and what it does with each answer."""

import dataclasses
import threading

import pytest

import presets
from kaito_hera import errors, nodes
from kaito_hera.nodes.aks import pool_name
from tests import making
from tests.kaito_hera.nodes.conftest import WANT, order
from tests.simulators import paper
from tests.simulators.azure import WHERE

POOL = pool_name(WANT)
BUSY = {
    "status": 409,
    "code": "OperationNotAllowed",
    "message": "Operation is not allowed: Another operation (Updating) is in progress, please wait for it to finish",
}
V100 = dataclasses.replace(WANT, size=presets.size("Standard_NC6s_v3"))


def made(aks, want=WANT):
    order(aks.provider(), want)
    aks.cloud.until(pool_name(want), "Succeeded")


def test_an_order_is_one_pool_that_carries_its_workspace(aks):
    accepted = order(aks.provider(), dataclasses.replace(WANT, count=2))
    assert (accepted.candidate, accepted.hostnames) == ("Standard_NC24ads_A100_v4/on-demand", ())
    assert list(aks.pools()) == [POOL]
    pool = aks.pools()[POOL]
    assert (pool.count, pool.vm_size, pool.mode) == (2, "Standard_NC24ads_A100_v4", "User")
    own = {"kaito.sh/workspace": "w", "kaito.sh/workspacenamespace": "team", "kaito.sh/workspace-uid": making.UID}
    assert pool.node_labels == {"app": "phi", **own}
    assert pool.node_taints == ["sku=gpu:NoSchedule"]
    assert pool.tags == {"kaito-hera-workspace-uid": making.UID, "kaito-hera-workspace": "team/w"}
    assert (pool.upgrade_settings.max_surge, pool.upgrade_settings.max_unavailable) == ("0", "1")


def test_pods_find_the_nodes_of_the_order(aks):
    made(aks)
    labels = aks.cloud.machines.about(aks.cloud.machines.on()[0])["labels"]
    assert aks.provider().placement(WANT).labels.items() <= labels.items()
    assert not aks.provider().placement(V100).labels.items() <= labels.items(), "nor those of an earlier size"


def test_asking_again_changes_nothing(aks):
    for _ in range(2):
        order(aks.provider())
    made(aks)
    assert aks.writes() == [("PUT", 201)]


def test_two_that_ask_at_once_make_one_pool(aks):
    class Free:
        def acquire(self):
            return True

        def release(self):
            pass

    both, orders = threading.Barrier(2), []

    def ask():
        provider = aks.provider(turns=Free())  # not even the lock keeps them apart
        provider._get(POOL)
        both.wait()
        orders.append(order(provider))

    hands = [threading.Thread(target=ask) for _ in range(2)]
    for hand in hands:
        hand.start()
    for hand in hands:
        hand.join()
    assert len(orders) == 2
    assert [status for _, status in aks.writes()].count(201) == 1
    aks.cloud.until(POOL, "Succeeded")
    assert len(aks.cloud.machines.on()) == 1


def test_a_busy_cluster_is_waited_out(aks):
    aks.cloud.scenario("busy", times=3, answer=BUSY)
    order(aks.provider())
    assert [status for _, status in aks.writes()] == [409, 409, 409, 201]


def test_a_cluster_that_stays_busy_ends_the_attempt_with_its_words(aks):
    aks.cloud.scenario("busy", answer=BUSY)
    with pytest.raises(errors.ProvisioningFailedError, match=r"stayed busy for 0 s: .*Another operation \(Updating\)"):
        order(aks.provider(busy_limit=0.1))


@pytest.mark.parametrize(
    ("quota", "words"),
    [
        pytest.param({"StandardNCADSA100v4Family": 30}, ["requested 24", "remaining 6", "NCADSA100v4"], id="family"),
        pytest.param({"cores": 20}, ["left regional vcpu quota 16", "requested quota 24"], id="region"),
    ],
)
def test_a_lack_of_quota_is_told_with_its_numbers_and_not_waited_out(aks, quota, words):
    aks.cloud.limits(quota=quota, used={"StandardNCADSA100v4Family": 24})
    with pytest.raises(errors.ProvisioningFailedError) as refused:
        order(aks.provider())
    for word in words:
        assert word in str(refused.value)
    assert aks.writes() == [("PUT", 400)]


def test_a_lack_of_quota_that_comes_with_the_code_of_a_busy_cluster_is_not_waited_out(aks):
    message = (
        "Operation could not be completed as it results in exceeding approved standardNCADSA100v4Family Cores quota. "
        "Additional details - Current Limit: 24, Current Usage: 24, Additional Required: 24"
    )
    aks.cloud.scenario("quota", answer={**BUSY, "message": message})
    with pytest.raises(errors.ProvisioningFailedError, match="Current Limit: 24, Current Usage: 24"):
        order(aks.provider())
    assert aks.writes() == [("PUT", 409)]


def test_a_pool_that_fails_later_says_the_inner_cause(aks):
    aks.cloud.limits(capacity={"Standard_NC24ads_A100_v4": 0})
    provider = aks.provider()
    order(provider)
    aks.cloud.until(POOL, "Failed")
    with pytest.raises(errors.ProvisioningFailedError, match=r"AllocationFailed.*sufficient capacity"):
        provider.check(WANT)


def test_the_inner_cause_is_found_in_the_details_too(aks):
    inner = {"code": "ZonalAllocationFailed", "message": "no capacity in this zone"}
    aks.cloud.scenario("late", fail={"code": "ReconcileVMSSAgentPoolFailed", "message": "see", "details": [inner]})
    provider = aks.provider()
    order(provider)
    aks.cloud.until(POOL, "Failed")
    with pytest.raises(errors.ProvisioningFailedError, match="ZonalAllocationFailed: no capacity in this zone"):
        provider.check(WANT)


def test_a_failed_pool_is_deleted_and_made_anew(aks):
    aks.cloud.scenario("late", times=1, fail={"code": "X", "message": "no luck", "afterNodes": 1})
    order(aks.provider())
    aks.cloud.until(POOL, "Failed")
    with pytest.raises(errors.ProvisioningFailedError, match="failed and is deleted: X: no luck"):
        order(aks.provider())
    aks.cloud.until(POOL, "gone")
    assert aks.cloud.machines.on() == []
    made(aks)


def test_a_pool_that_cannot_grow_keeps_the_node_that_serves(aks):
    made(aks)
    serving = aks.cloud.machines.on()
    more = dataclasses.replace(WANT, count=2)
    aks.cloud.limits(capacity={"Standard_NC24ads_A100_v4": 1})
    for _ in range(2):
        order(aks.provider(), more, ready=True)
        aks.cloud.until(POOL, "Failed")
        assert aks.cloud.machines.on() == serving
    aks.cloud.limits(capacity={"Standard_NC24ads_A100_v4": 2})
    order(aks.provider(), more, ready=True)
    aks.cloud.until(POOL, "Succeeded")
    assert len(aks.cloud.machines.on()) == 2
    assert [method for method, _ in aks.writes()] == ["PUT"] * 4


def test_an_edit_while_azure_is_busy_comes_before_the_write(aks):
    aks.cloud.scenario("busy", times=2, answer=BUSY)
    turns = iter([None, None, errors.SupersededError("Workspace team/w was changed")])

    def still_wanted():
        if change := next(turns):
            raise change

    with pytest.raises(errors.SupersededError):
        order(aks.provider(), still_wanted=still_wanted)
    assert [status for _, status in aks.writes()] == [409, 409]
    assert aks.pools() == {}


def test_a_failed_pool_is_not_deleted_by_a_step_that_nobody_wants(aks):
    aks.cloud.scenario("late", times=1, fail={"code": "X", "message": "no luck"})
    order(aks.provider())
    aks.cloud.until(POOL, "Failed")

    def still_wanted():
        raise errors.SupersededError("Workspace team/w was changed")

    with pytest.raises(errors.SupersededError):
        order(aks.provider(), still_wanted=still_wanted)
    assert list(aks.pools()) == [POOL]


def test_a_pool_whose_making_was_cancelled_is_deleted_too(aks):
    aks.cloud.machines.joining.clear()
    provider = aks.provider()
    order(provider)
    aks.cloud.pools.begin_abort_latest_operation(*WHERE, POOL).result()
    with pytest.raises(errors.ProvisioningFailedError, match="it is Canceled"):
        provider.check(WANT)
    with pytest.raises(errors.ProvisioningFailedError, match="is deleted"):
        order(provider)
    aks.cloud.until(POOL, "gone")


def test_a_pool_that_is_being_deleted_is_made_anew_by_a_later_attempt(aks):
    made(aks)
    aks.cloud.scenario("slow", method="DELETE", delay=60)
    aks.provider().release(making.UID)
    with pytest.raises(errors.ProvisioningFailedError, match="still being deleted"):
        order(aks.provider())


@pytest.mark.parametrize("count", [3, 1])
def test_another_count_changes_the_pool_that_is_there(aks, count):
    made(aks, dataclasses.replace(WANT, count=2))
    made(aks, dataclasses.replace(WANT, count=count))
    assert len(aks.cloud.machines.on()) == count
    assert list(aks.pools()) == [POOL]


def test_a_pool_that_shrank_by_itself_is_filled_again(aks):
    made(aks)
    aks.cloud.put(POOL, count=0, size="Standard_NC24ads_A100_v4")
    aks.cloud.until(POOL, "Succeeded")
    assert aks.cloud.machines.on() == []
    made(aks)
    assert len(aks.cloud.machines.on()) == 1


def test_another_selector_labels_the_nodes_that_are_there(aks):
    made(aks)
    made(aks, dataclasses.replace(WANT, labels={"app": "other"}))
    assert aks.cloud.machines.about(aks.cloud.machines.on()[0])["labels"]["app"] == "other"


def test_a_pool_that_somebody_wrote_meanwhile_is_looked_at_again(aks):
    made(aks)
    aks.cloud.scenario("stale", times=2, answer={"status": 412, "code": "PreconditionFailed", "message": "If-Match"})
    made(aks, dataclasses.replace(WANT, count=2))
    assert [status for _, status in aks.writes()] == [201, 412, 412, 200]


def test_a_pool_that_is_gone_is_told_but_an_azure_that_is_away_is_not(aks):
    provider = aks.provider()
    order(provider)
    aks.wire.whole = False
    aks.wire.cut()
    provider.check(WANT)
    with pytest.raises(errors.ProvisioningFailedError, match="Azure cannot be asked"):
        order(provider)
    aks.wire.whole = True
    aks.cloud.delete(POOL)
    aks.cloud.until(POOL, "gone")
    with pytest.raises(errors.ProvisioningFailedError, match=f"{POOL} is gone"):
        provider.check(WANT)


def test_a_release_takes_a_pool_that_is_still_being_made(aks):
    aks.cloud.machines.joining.clear()
    order(aks.provider())
    paper.until(aks.cloud.machines.on, "the machine to start")
    nodes.release(aks.provider(), making.UID, pause=0.02)
    assert aks.pools() == {}
    assert aks.cloud.machines.on() == []


def test_a_release_takes_the_pools_of_all_sizes_and_of_nobody_else(aks):
    other = dataclasses.replace(WANT, uid="99999999-2222-3333-4444-555555555555", workspace="team/other", name="other")
    for want in (WANT, V100, other):
        made(aks, want)
    aks.cloud.put("users", tags={"owner": "somebody"})
    aks.cloud.until("users", "Succeeded")
    nodes.release(aks.provider(), making.UID, pause=0.02)
    assert set(aks.pools()) == {pool_name(other), "users"}


def test_a_pool_that_cannot_be_deleted_keeps_no_other(aks):
    made(aks, WANT)
    made(aks, V100)
    locked = {"status": 409, "code": "ScopeLocked", "message": "the scope is locked"}
    first = min(POOL, pool_name(V100))
    aks.cloud.scenario("locked", method="DELETE", pool=first, answer=locked)
    with pytest.raises(errors.ProvisioningFailedError, match="the scope is locked"):
        aks.provider().release(making.UID)
    paper.until(lambda: list(aks.pools()) == [first], "the other pool to go")


def test_a_release_of_nothing_is_done_at_once(aks):
    assert aks.provider().release(making.UID) is True
    assert aks.writes() == []


def test_a_release_is_not_over_before_the_machines_are_gone(aks):
    made(aks)
    aks.cloud.machines.broken["remove"] = RuntimeError("busy")
    provider = aks.provider()
    assert provider.release(making.UID) is False
    assert provider.release(making.UID) is False, "it is asked for once, and waited for"
    assert [method for method, _ in aks.writes()].count("DELETE") == 1
    aks.cloud.machines.broken.clear()
    nodes.release(provider, making.UID, pause=0.02)
    assert aks.cloud.machines.on() == []
