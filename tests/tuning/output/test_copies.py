"""Copies of checkpoints in a real registry: pushed aside, brought to the next attempt, gone in the end or named."""

import contextlib
import json
import logging
import threading
import time

import pytest
import requests

from artifacts.manifest import Layer
from tests.tuning import servers
from tests.tuning.conftest import CARD, entry, tuning_config, write_secret
from tuning.errors import RegistryUnavailable
from tuning.eviction import Eviction
from tuning.output import checkpoints, copies, destination
from tuning.output.checkpoints import Checkpoint, Checkpoints
from tuning.output.copies import Copies
from tuning.output.patience import Patience
from tuning.places import Places

INTENT = "0123456789abcdef"
TAG = "1.0-ckpt-01234567"


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


class World:
    """A registry, and attempts that each have a disk of their own."""

    def __init__(self, tmp_path, *, deletes):
        self.server = servers.Registry(tmp_path, password=True, deletes=deletes)
        self.secret = write_secret(tmp_path / "push.json", {self.server.host: entry()})
        self.tmp_path, self.attempts = tmp_path, 0
        self.clock = Clock()

    def attempt(self, *, identity="mine", seconds=900, host="", clock=None):
        self.attempts += 1
        image = f"{host or self.server.host}/team/adapter:1.0"
        self.copies = Copies(
            image, self.secret, INTENT, eviction=Eviction(), seconds=seconds, clock=clock or self.clock
        )
        self.folder = checkpoints.place(self.tmp_path / f"disk-{self.attempts}", INTENT)
        self.folder.parent.mkdir()
        return Checkpoints(self.folder, identity, seconds=300, copies=self.copies, clock=clock or self.clock)

    def steps(self):
        """What the tag has."""
        found = self.server.manifest("team/adapter", TAG)
        return found and found["annotations"]["sh.kaito.hera.step"]

    def quiet(self):
        """Once nothing is under way any more."""
        while self.copies.in_use:
            time.sleep(0.005)


@pytest.fixture(params=[True, False], ids=["deletes", "keeps"])
def world(tmp_path, request):
    made = World(tmp_path, deletes=request.param)
    made.deletes = request.param
    yield made
    made.server.close()


@pytest.fixture
def one(tmp_path):
    made = World(tmp_path, deletes=True)
    yield made
    made.server.close()


def fill(text):
    def write(into):
        (into / "optimizer.pt").write_bytes(text * 1000)
        (into / "trainer_state.json").write_bytes(b"{}")

    return write


def test_the_next_attempt_goes_on_from_what_the_registry_has(one, caplog):
    first = one.attempt()
    assert first.newest() is None
    assert first.write(10, fill(b"ten"))
    one.quiet()
    assert (one.steps(), first.finish(0)) == ("10", 10)
    second = one.attempt()
    found = second.newest()
    assert found == Checkpoint(10, one.folder / "checkpoint-10")
    assert (found.path / "optimizer.pt").read_bytes() == b"ten" * 1000
    assert sorted(path.name for path in one.folder.iterdir()) == ["checkpoint-10"]
    assert second.finish(0) == 10


def test_one_larger_than_an_image_with_data_may_be_is_unpacked(tmp_path):
    whole = tmp_path / "files"
    tree = copies._tree(whole)
    for name, size in {"optimizer.pt": 60 << 30, "adapter.safetensors": 30 << 30}.items():
        (tmp_path / "blob").write_bytes(b"what is stored is not looked at again")
        tree.add(tmp_path / "blob", Layer("sha256:1", size, title=f"data/{name}"), hashed=True)
    assert len(list(whole.glob("data/*"))) == 2


def test_the_pods_own_disk_comes_first(one):
    first = one.attempt()
    first.write(10, fill(b"ten"))
    one.quiet()
    first.write(20, fill(b"twenty"))
    again = Checkpoints(one.folder, "mine", seconds=300, copies=one.copies)
    assert (again.newest().step, one.steps()) == (20, "10")


def test_one_comes_at_once_and_the_next_after_a_while(one):
    attempt = one.attempt(seconds=900)
    attempt.write(10, fill(b"ten"))
    one.quiet()
    one.clock.now += 899
    attempt.write(20, fill(b"twenty"))
    assert not one.copies.in_use
    one.clock.now += 1
    attempt.write(30, fill(b"thirty"))
    one.quiet()
    assert one.steps() == "30"


def test_they_take_a_twentieth_of_the_time(one):
    slow = Slow(one.server)
    attempt = one.attempt(seconds=0, host=slow.host)
    write_secret(one.secret, {slow.host: entry()})
    attempt.write(10, fill(b"ten"))
    one.clock.now += 50  # while it is under way
    slow.goes.set()
    one.quiet()
    one.clock.now += 949
    attempt.write(20, fill(b"twenty"))
    assert not one.copies.in_use
    one.clock.now += 1
    attempt.write(30, fill(b"thirty"))
    one.quiet()
    assert one.steps() == "30"
    slow.close()


class Slow(servers.Server):
    """Before a registry: takes no blob before it `goes`."""

    def __init__(self, behind):
        self.behind, self.goes = behind, threading.Event()
        super().__init__()

    def answer(self, request):
        if request.command in ("PUT", "PATCH"):
            self.goes.wait(30)
        answer = servers.forward(self.behind, request)
        headers = {k: v for k, v in answer.headers.items() if k not in ("Transfer-Encoding", "Content-Length")}
        if request.command == "HEAD":
            headers["Content-Length"] = answer.headers["Content-Length"]
        self.reply(request, answer.status_code, answer.content, headers)


def test_one_that_is_under_way_is_not_deleted_from_the_disk(one):
    slow = Slow(one.server)
    attempt = one.attempt(seconds=0, host=slow.host)
    write_secret(one.secret, {slow.host: entry()})
    for step in (10, 20, 30, 40):
        assert attempt.write(step, fill(b"%d" % step))
    names = sorted(path.name for path in one.folder.iterdir())
    assert names == ["checkpoint-10", "checkpoint-30", "checkpoint-40"]
    slow.goes.set()
    one.quiet()
    assert one.steps() == "10"
    slow.close()


def test_what_is_replaced_is_deleted_or_counted_and_the_last_one_too(world, caplog):
    attempt = world.attempt(seconds=0)
    digests = []
    with caplog.at_level(logging.INFO):
        for step in (10, 20, 30):
            attempt.write(step, fill(b"%d" % step))
            world.quiet()
            digests.append(digest(world))
        left = attempt.drop()
    there = [exists(world, each) for each in digests]
    assert not world.folder.exists()
    if world.deletes:
        assert (left, there) == ("", [False] * 3)
    else:
        name = f"{world.server.host}/team/adapter"
        assert (left, there) == (f"{name}:{TAG} and 2 manifests without a tag", [True] * 3)
        assert caplog.text.count("keeps what is replaced") == 1
        assert f"{name}:{TAG} cannot be deleted" in caplog.text


def digest(world):
    accept = {"Accept": "application/vnd.oci.image.manifest.v1+json"}
    url = f"http://{world.server.host}/v2/team/adapter/manifests/{TAG}"
    answer = requests.head(url, headers=accept, auth=(servers.USER, servers.PASSWORD), timeout=5)
    return answer.headers["Docker-Content-Digest"]


def exists(world, which):
    accept = {"Accept": "application/vnd.oci.image.manifest.v1+json"}
    url = f"http://{world.server.host}/v2/team/adapter/manifests/{which}"
    return requests.head(url, headers=accept, auth=(servers.USER, servers.PASSWORD), timeout=5).ok


def test_those_of_other_rows_or_settings_do_not_count(one, caplog):
    one.attempt(identity="others").write(10, fill(b"ten"))
    one.quiet()
    mine = one.attempt()
    assert mine.newest() is None
    assert "is of other rows, settings or another model" in caplog.text
    mine.write(5, fill(b"five"))
    one.quiet()
    assert one.steps() == "5"


def test_what_turned_out_to_be_of_no_use_is_brought_once_and_never_gone_on_from(world):
    world.attempt().write(10, fill(b"ten"))
    world.quiet()
    second = world.attempt()
    second.remove(second.newest())
    assert second.newest() is None
    assert second.finish(0) == 0
    third = world.attempt()
    assert third.newest() is None
    third.write(5, fill(b"five"))
    world.quiet()
    assert world.attempt().newest().step == 5


def test_before_the_pod_goes_the_newest_is_brought_there_if_that_fits(one):
    attempt = one.attempt(clock=time.monotonic)
    attempt.write(10, fill(b"ten"))
    one.quiet()
    attempt.write(20, fill(b"twenty"))  # too soon for a copy
    assert attempt.finish(60) == 20
    assert one.steps() == "20"
    attempt.write(30, fill(b"thirty"))
    assert attempt.finish(1) == 20
    assert one.steps() == "20"


def test_a_push_that_does_not_end_in_time_is_cut_off(one):
    slow = Slow(one.server)
    attempt = one.attempt(host=slow.host, clock=time.monotonic)
    write_secret(one.secret, {slow.host: entry()})
    attempt.write(10, fill(b"ten"))
    assert attempt.finish(6) == 0
    assert not one.copies.in_use
    slow.goes.set()
    slow.close()


def test_a_push_that_has_hardly_begun_is_cut_off_too(one):
    slow = threading.Event()

    class OnSlowDisk(type(one.secret)):
        def __fspath__(self):
            slow.wait()
            return super().__fspath__()

    one.secret = OnSlowDisk(one.secret)
    attempt = one.attempt()
    attempt.write(10, fill(b"ten"))  # its push waits for the secret
    assert attempt.finish(0) == 0
    assert one.copies.in_use
    slow.set()
    one.quiet()
    assert one.steps() is None


def test_a_registry_that_is_away_ends_no_training(one, caplog):
    attempt = one.attempt()
    one.server.close()
    assert attempt.write(10, fill(b"ten"))
    one.quiet()
    assert "no copy of the checkpoint after step 10" in caplog.text
    one.server.start()
    one.clock.now += 10_000
    attempt.write(20, fill(b"twenty"))
    one.quiet()
    assert one.steps() == "20"


def test_a_registry_that_is_away_is_waited_for_before_anything_starts_over(one, tmp_path):
    one.attempt().write(10, fill(b"ten"))
    one.quiet()
    one.server.close()
    one.attempt()
    with pytest.raises(RegistryUnavailable, match="to start over would cost more than another try"):
        one.copies.fetch(tmp_path, "mine", patience=0)
    threading.Timer(0.5, one.server.start).start()
    assert one.copies.fetch(tmp_path, "mine", patience=30)


def test_an_image_of_that_name_that_is_none_of_ours_is_passed_over(one, caplog):
    base, session = f"http://{one.server.host}/v2/team/adapter", requests.Session()
    session.auth = (servers.USER, servers.PASSWORD)
    name = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    begun = session.post(f"{base}/blobs/uploads/", timeout=5).headers["Location"]
    session.put(f"{begun}&digest={name}", data=b"{}", timeout=5)
    described = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": name, "size": 2}
    kind = "application/vnd.oci.image.manifest.v1+json"
    body = {"schemaVersion": 2, "mediaType": kind, "config": described, "layers": []}
    body["annotations"] = {"sh.kaito.hera.checkpoint": "mine"}
    session.put(f"{base}/manifests/{TAG}", data=json.dumps(body), headers={"Content-Type": kind}, timeout=5)
    with contextlib.closing(session):
        assert one.attempt().newest() is None
    assert "no checkpoint is gone on from" in caplog.text


def test_what_a_run_left_that_was_killed_at_its_very_end_goes_with_the_next_look(one, made):
    one.attempt().write(10, fill(b"ten"))
    one.quiet()
    image = f"{one.server.host}/team/adapter:1.0"
    config = tuning_config(image, [], input={"volume": "in"}, intent=INTENT, checkpoint_seconds=300)
    places = Places(scratch=one.tmp_path / "scratch", push_auth=one.secret)
    (places.scratch / "adapter").mkdir(parents=True)
    put = destination.put(config, places, made(), CARD, waits=Patience(Eviction(), seconds=0))
    assert one.steps() == "10"
    assert destination.find(config, places) == put.name
    assert one.steps() is None
