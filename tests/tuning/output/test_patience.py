"""A finished adapter waits for its place, says what that costs, and is given up late."""

import os
import signal
import time

import pytest

from tests.tuning import servers
from tests.tuning.conftest import CARD, entry, tuning_config, write_secret
from tuning.errors import Evicted, PushUnauthorized, RegistryUnavailable
from tuning.eviction import Eviction
from tuning.output import destination, volume
from tuning.output.checkpoints import Checkpoints
from tuning.output.patience import Patience
from tuning.places import Places

AWAY = RegistryUnavailable("the registry does not answer")


@pytest.fixture
def eviction():
    before = signal.getsignal(signal.SIGTERM)
    made = Eviction(grace=10.5)
    made.listen()
    yield made
    signal.signal(signal.SIGTERM, before)


def test_what_the_waiting_costs_is_told_with_its_reason(eviction):
    told = []
    waits = Patience(eviction, seconds=3600, usd_per_hour=3600 * 50, tell=told.append, pause=0.02)
    for _ in range(2):
        waits.bear(AWAY)
    assert "has waited 0 min for its place, about 0.0" in told[0]
    assert told[0].endswith(": the registry does not answer")
    cost = float(told[1].partition("about ")[2].partition(" USD")[0])
    assert cost > 0.9  # 50 dollars a second, and 20 ms at least were slept


def test_a_price_that_nobody_knows_is_not_told(eviction):
    told = []
    Patience(eviction, seconds=3600, tell=told.append, pause=0).bear(AWAY)
    assert "USD" not in told[0]


def bear_all(waits):
    while True:
        waits.bear(AWAY)


def test_in_the_end_it_is_given_up(eviction):
    told = []
    with pytest.raises(RegistryUnavailable):
        bear_all(Patience(eviction, seconds=0.1, tell=told.append, pause=0.01))
    assert len(told) > 1


def test_a_pod_that_has_to_go_tries_for_as_long_as_it_can(eviction):
    waits = Patience(eviction, seconds=3600, pause=0.05)
    with eviction.deferred():
        os.kill(os.getpid(), signal.SIGTERM)
        waits.bear(AWAY)  # half a second is left
        with pytest.raises(Evicted, match="while waiting; the next attempt starts over"):
            bear_all(waits)
    assert eviction.left() < 10


class Keeper:
    def __init__(self, stop):
        self.stop, self.asked = stop, []

    def next_stop(self):
        return self.stop

    def finish(self, seconds):
        self.asked.append(seconds)
        return 40


@pytest.mark.parametrize(("stop", "at_once"), [(5.0, False), (1000.0, True)])
def test_a_step_that_would_outlast_the_pod_is_not_waited_for(stop, at_once):
    before = signal.getsignal(signal.SIGTERM)
    gone = []
    eviction = Eviction(gone.append, grace=60)
    eviction.keeper = Keeper(stop)
    eviction.listen()
    with eviction.deferred():
        os.kill(os.getpid(), signal.SIGTERM)
        while not eviction.requested:
            time.sleep(0.001)
    signal.signal(signal.SIGTERM, before)
    assert bool(gone) is at_once
    if at_once:
        assert "a step that takes longer than the pod has; the next attempt goes on from step 40" in str(gone[0])
    assert all(59 < seconds <= 60 for seconds in eviction.keeper.asked)


def test_the_time_to_the_next_stop_is_that_of_a_step_and_two_writes(tmp_path):
    now = [0.0]
    kept = Checkpoints(tmp_path / "c", "mine", seconds=300, clock=lambda: now[0])

    def fill(into):
        (into / "optimizer.pt").write_text("x")
        now[0] += 3

    assert kept.next_stop() == 0, "nothing is known"
    now[0] += 500  # the model is loaded
    for _ in range(2):
        kept.begin_step()
        now[0] += 40
        kept.due()
        now[0] += 90  # rows held out are looked at
        kept.write(1, fill)
        assert kept.next_stop() == 0, "it stops now"
    kept.begin_step()
    now[0] += 10
    assert kept.next_stop() == 30 + 6
    now[0] += 100
    assert kept.next_stop() == 0, "it is no step any more"


@pytest.fixture
def registry(tmp_path):
    with servers.Registry(tmp_path, password=True) as server:
        yield server


def packed(config, places, made, eviction, **waits):
    return destination.put(config, places, made("w" * (200 << 10)), CARD, waits=Patience(eviction, **waits))


def test_a_full_disk_of_the_pod_takes_the_image_in_place_of_checkpoints(small, registry, made, eviction, tmp_path):
    secret = write_secret(tmp_path / "push.json", {registry.host: entry()})
    config = tuning_config(f"{registry.host}/team/full:1", [], input={"volume": "in"}, checkpoint_seconds=300)
    places = Places(scratch=small, push_auth=secret)
    (small / "adapter").mkdir()
    saved = destination.kept(config, places, "mine", eviction)
    noise = os.urandom(400 << 10)
    for step in (10, 20):
        assert saved.write(step, lambda into: (into / "optimizer.pt").write_bytes(noise))
    files = made()
    files[volume.NAMES[1]].write_bytes(os.urandom(500 << 10))
    put = destination.put(config, places, files, CARD, waits=Patience(eviction, seconds=0), saved=saved)
    assert registry.manifest("team/full", "1")
    assert put.name.startswith(f"{registry.host}/team/full@sha256:")


def test_a_password_that_is_wrong_in_the_end_is_borne_too(registry, made, eviction, tmp_path):
    secret = write_secret(tmp_path / "push.json", {registry.host: entry(password="expired")})
    config = tuning_config(f"{registry.host}/team/late:1", [], input={"volume": "in"})
    places = Places(scratch=tmp_path / "s", push_auth=secret)
    (tmp_path / "s" / "adapter").mkdir(parents=True)
    with pytest.raises(PushUnauthorized):
        packed(config, places, made, eviction, seconds=0)
    told = []

    def mend(text):
        told.append(text)
        write_secret(secret, {registry.host: entry()})

    put = packed(config, places, made, eviction, seconds=60, pause=0.05, tell=mend)
    assert "imagePushSecret" in told[0]
    assert put.name.startswith(f"{registry.host}/team/late@sha256:")
    assert registry.manifest("team/late", "1")
