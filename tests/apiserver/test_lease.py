import threading
import time

import pytest

from kaito_hera import errors
from kaito_hera.cluster import LEASE as _LEASE
from kaito_hera.lease import Lease, lead, turn
from tests.apiserver.conftest import until


def test_one_holder_at_a_time(cluster, namespace):
    first, second = (Lease(cluster, "l", namespace, holder) for holder in ("first", "second"))
    assert first.acquire()
    assert not second.acquire()
    assert first.acquire(), "renewing is acquiring again"
    first.release()
    assert second.acquire()
    first.release()
    assert not first.acquire(), "who does not hold it cannot let it go"


def test_a_lease_that_is_not_renewed_runs_out(cluster, namespace):
    first, second = (Lease(cluster, "l", namespace, holder, seconds=1) for holder in ("first", "second"))
    assert first.acquire()
    assert not second.acquire()
    time.sleep(1.2)
    assert second.acquire()
    assert not first.acquire()


def test_a_lease_that_is_renewed_does_not_run_out(cluster, namespace):
    first, second = (Lease(cluster, "l", namespace, holder, seconds=1) for holder in ("first", "second"))
    for _ in range(4):
        assert first.acquire()
        assert not second.acquire()
        time.sleep(0.4)


def test_turns_are_taken_one_after_the_other(cluster, namespace):
    inside, most = [], []

    def work(holder):
        with turn(Lease(cluster, "l", namespace, holder)):
            inside.append(holder)
            most.append(len(inside))
            time.sleep(0.05)
            inside.remove(holder)

    hands = [threading.Thread(target=work, args=(f"h{number}",)) for number in range(3)]
    for hand in hands:
        hand.start()
    for hand in hands:
        hand.join()
    assert most == [1, 1, 1]


def test_a_turn_that_does_not_come_is_a_reason_to_try_again(cluster, namespace):
    assert Lease(cluster, "l", namespace, "first", seconds=60).acquire()
    with (
        pytest.raises(errors.ClusterUnavailableError, match="lock"),
        turn(Lease(cluster, "l", namespace, "second"), timeout=0.5),
    ):
        pytest.fail("nobody may be here")


def test_a_turn_that_cannot_be_ended_runs_out_by_itself(cluster, namespace, wire):
    with turn(Lease(wire.cluster, "l", namespace, "first", seconds=1)):
        wire.whole = False
        wire.cut()
    second = Lease(cluster, "l", namespace, "second")
    assert not second.acquire()
    time.sleep(1.2)
    assert second.acquire()


def test_a_leader_that_is_robbed_of_the_lead_stops_leading(cluster, namespace):
    worked = threading.Event()
    ended = threading.Event()

    def run():
        lead(Lease(cluster, "l", namespace, "first", seconds=1), worked.set, renew=0.1, give_up=0.5)
        ended.set()

    threading.Thread(target=run, daemon=True).start()
    assert worked.wait(5)
    robber = Lease(cluster, "l", namespace, "second", seconds=60)
    found = robber._object({"metadata": cluster.get(_LEASE, "l", namespace)["metadata"]})
    while not _replaced(cluster, found, namespace):
        found = robber._object({"metadata": cluster.get(_LEASE, "l", namespace)["metadata"]})
    assert ended.wait(5)


class Stuck:
    """A lease whose renewals are not answered."""

    def __init__(self):
        self.calls = 0

    def acquire(self):
        self.calls += 1
        if self.calls > 3:
            time.sleep(60)
        return True


def test_a_leader_that_gets_no_answer_stops_leading_before_another_may_begin():
    began = []
    threading.Thread(
        target=lambda: (lead(Stuck(), lambda: began.append(1), renew=0.05, give_up=0.5), began.append(2)), daemon=True
    ).start()
    until(lambda: began == [1, 2], what="its end", seconds=5)


class Late:
    """A lease that is given, but whose answer takes longer than it may."""

    def __init__(self):
        self.calls = 0

    def acquire(self):
        self.calls += 1
        time.sleep(0.4 if self.calls == 1 else 0)
        return True


def test_an_answer_that_comes_too_late_gives_no_lead():
    late, calls = Late(), []
    threading.Thread(
        target=lambda: lead(late, lambda: calls.append(late.calls), renew=0.05, give_up=0.2), daemon=True
    ).start()
    until(lambda: calls, what="a lead", seconds=5)
    assert calls == [2]


def _replaced(cluster, found, namespace):
    try:
        cluster.replace(_LEASE, found)
    except errors.ClusterUnavailableError:
        return False
    return True
