"""Checkpoints as folders: whole or not there, the newest two, and never what ends a training."""

import contextlib
import json
import logging

import pytest

from tests.tuning.conftest import tuning_config
from tuning.errors import VolumeRefused
from tuning.eviction import Eviction
from tuning.output import checkpoints, destination, volume
from tuning.output.checkpoints import Checkpoint, Checkpoints
from tuning.output.patience import Patience
from tuning.places import Places


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def folder(tmp_path):
    return checkpoints.place(tmp_path, "an-intent")


@pytest.fixture
def kept(folder, clock):
    """What an attempt has in hand; each time another attempt."""
    return lambda identity="mine": Checkpoints(folder, identity, seconds=300, clock=clock)


def fill(text, *, clock=None, seconds=0.0):
    def write(into):
        for name in ("optimizer.pt", "trainer_state.json"):
            (into / name).write_text(f"{name} {text}")
        if clock:
            clock.now += seconds

    return write


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_newest_two_are_kept_and_the_next_attempt_takes_the_newest(folder, kept):
    assert kept().newest() is None
    first = kept()
    for step in (9, 10, 200):
        assert first.write(step, fill(step))
    assert names(folder) == ["checkpoint-10", "checkpoint-200"]
    assert kept().newest() == Checkpoint(200, folder / "checkpoint-200")
    second = kept()
    second.newest()
    assert second.write(300, fill("later"))
    assert names(folder) == ["checkpoint-200", "checkpoint-300"]
    assert (folder / "checkpoint-300" / "optimizer.pt").read_text() == "optimizer.pt later"


def _damage_file(path):
    (path / "optimizer.pt").write_text("optimizer.pt 30")


def _cut_file(path):
    (path / "optimizer.pt").write_text("")


def _lose_file(path):
    (path / "optimizer.pt").unlink()


def _lose_manifest(path):
    (path / checkpoints.MANIFEST).unlink()


def _spoil_manifest(path):
    (path / checkpoints.MANIFEST).write_text("[")


def _another_manifest(path):
    (path / checkpoints.MANIFEST).write_text('{"files": ["optimizer.pt"], "run": "mine"}')


def _empty(path):
    for file in path.iterdir():
        file.unlink()


@pytest.mark.parametrize(
    "damage",
    [_damage_file, _cut_file, _lose_file, _lose_manifest, _spoil_manifest, _another_manifest, _empty],
    ids=lambda damage: damage.__name__,
)
def test_a_damaged_one_is_passed_over_for_the_one_before(folder, kept, caplog, damage):
    writing = kept()
    writing.write(10, fill("10"))
    writing.write(20, fill("20"))
    damage(folder / "checkpoint-20")
    assert kept().newest() == Checkpoint(10, folder / "checkpoint-10")
    assert "tuning.output.volumeSource: .checkpoints-an-intent/checkpoint-20 is passed over: " in caplog.text
    damage(folder / "checkpoint-10")
    going_on = kept()
    assert going_on.newest() is None
    assert going_on.write(20, fill("anew"))
    assert names(folder) == ["checkpoint-20"]
    assert kept().newest().step == 20


def test_those_of_other_rows_or_settings_do_not_count(folder, kept, caplog):
    kept("others").write(50, fill("others"))
    mine = kept()
    assert mine.newest() is None
    assert "it is of other rows, settings or another model" in caplog.text
    assert mine.write(10, fill("mine"))
    assert names(folder) == ["checkpoint-10"]


def test_an_identity_tells_one_thing_from_another():
    assert checkpoints.identity(a=1, b="x") == checkpoints.identity(b="x", a=1)
    assert len({checkpoints.identity(**parts) for parts in ({"a": 1}, {"a": 2}, {"b": 1}, {})}) == 4


def test_what_a_killed_pod_has_left_half_written_is_not_taken_and_cleared_away(folder, kept):
    kept().write(10, fill("10"))
    half = folder / ".incoming-of-a-pod-that-was-killed"
    half.mkdir()
    fill("half")(half)
    going_on = kept()
    assert going_on.newest().step == 10
    going_on.write(20, fill("20"))
    assert names(folder) == ["checkpoint-10", "checkpoint-20"]


def test_one_that_cannot_be_written_costs_nothing_but_a_warning(folder, kept, caplog):
    def break_off(into):
        fill("half")(into)
        raise RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0\nframe #0")

    writing = kept()
    assert writing.write(10, fill("10"))
    with caplog.at_level(logging.WARNING):
        assert not writing.write(20, break_off)
    assert "no checkpoint after step 20 (RuntimeError: [enforce fail at inline_container.cc:664]" in caplog.text
    assert "frame #0" not in caplog.text
    assert names(folder) == ["checkpoint-10"]
    assert writing.write(30, fill("30"))


def test_a_volume_that_is_full_costs_nothing_but_a_warning(small, clock, caplog):
    folder = checkpoints.place(small, "an-intent")
    writing = Checkpoints(folder, "mine", seconds=300, clock=clock)
    large = fill("x" * (300 << 10))  # twice, so that there is room for one, and never for two
    assert writing.write(10, large)
    assert not writing.write(20, large)
    assert "No space left on device" in caplog.text
    assert "make the claim larger or free some of it" in caplog.text
    assert names(folder) == ["checkpoint-10"]
    assert Checkpoints(folder, "mine", seconds=300, clock=clock).newest().step == 10


def test_one_is_due_by_time_and_takes_a_twentieth_of_it_at_most(kept, clock):
    writing = kept()
    for seconds, due in ((0, False), (299, False), (1, True)):
        clock.now += seconds
        assert writing.due() is due
    writing.write(10, fill("10", clock=clock, seconds=2))
    clock.now += 300
    assert writing.due()
    writing.write(20, fill("20", clock=clock, seconds=30))
    clock.now += 599
    assert not writing.due()
    clock.now += 1
    assert writing.due()
    writing.write(30, fill("30"))
    clock.now += 300
    assert writing.due()  # the volume was slow once, and is not any more


def test_one_that_fails_is_not_tried_at_each_step(kept, clock):
    def refuse(_into):
        raise OSError

    writing = kept()
    clock.now += 300
    writing.write(10, refuse)
    assert not writing.due()


def test_before_the_pod_goes_one_is_taken_if_there_is_time(kept, clock):
    writing = kept()
    assert writing.fits(1)  # nobody knows yet, and half of one does no harm
    writing.write(10, fill("10", clock=clock, seconds=20))
    assert writing.fits(41)
    assert not writing.fits(39)
    writing.write(20, fill("20", clock=clock, seconds=5))
    assert writing.fits(39)


def test_they_give_way_to_the_adapter_one_by_one(folder, kept):
    assert not checkpoints.make_room(folder)
    writing = kept()
    writing.write(9, fill("9"))
    writing.write(10, fill("10"))
    assert checkpoints.make_room(folder)
    assert names(folder) == ["checkpoint-10"]
    assert checkpoints.make_room(folder)
    assert not checkpoints.make_room(folder)


def test_a_full_volume_takes_the_adapter_in_place_of_checkpoints(small, tmp_path):
    config = tuning_config("", [], input={"volume": "in"}, output={"volume": "out"}, checkpoint_seconds=300)
    places = Places(scratch=tmp_path, results=small)
    eviction = Eviction()
    keeping = destination.kept(config, places, "mine", eviction)
    for step in (10, 20):
        assert keeping.write(step, fill("x" * (200 << 10)))
    saved = tmp_path / "saved"
    saved.mkdir()
    for name, text in zip(volume.NAMES, ("{}", "w" * (500 << 10), "{{ x }}"), strict=True):
        (saved / name).write_text(text)
    files = {name: saved / name for name in volume.NAMES}
    made = destination.put(config, places, files, {"loss": 0.5}, waits=Patience(eviction, seconds=0))
    assert made.name == f"out@{volume.digest(small)}"
    assert sorted(path.name for path in small.iterdir()) == sorted([*volume.NAMES, volume.CARD])


def test_what_a_run_left_that_was_killed_at_its_very_end_is_cleared_away(tmp_path, folder, kept, made):
    kept().write(10, fill("10"))
    digest = volume.keep(made(), {"loss": 0.5, "files": sorted(volume.NAMES)}, tmp_path, "an-intent")
    config = tuning_config("", [], input={"volume": "in"}, output={"volume": "out"}, checkpoint_seconds=300)
    assert destination.find(config, Places(scratch=tmp_path, results=tmp_path)) == f"out@{digest}"
    assert not folder.exists()


def test_other_runs_are_named_and_left_alone(tmp_path, kept, caplog):
    other = checkpoints.place(tmp_path, "another-intent")
    Checkpoints(other, "theirs", seconds=300).write(10, fill("10"))
    config = tuning_config("", [], input={"volume": "in"}, output={"volume": "out"}, checkpoint_seconds=300)
    with caplog.at_level(logging.INFO):
        writing = destination.kept(config, Places(scratch=tmp_path, results=tmp_path), "mine", Eviction())
    assert ".checkpoints-another-intent are of other runs" in caplog.text
    writing.write(20, fill("20"))
    checkpoints.drop(checkpoints.place(tmp_path, "an-intent"))
    assert names(other) == ["checkpoint-10"]


def test_none_are_taken_where_none_are_wanted(tmp_path):
    quiet = tuning_config("", [], input={"volume": "in"}, output={"volume": "out"})
    assert destination.kept(quiet, Places(scratch=tmp_path, results=tmp_path), "mine", Eviction()) is None


def test_the_manifest_says_what_is_in_it(folder, kept):
    kept().write(10, fill("10"))
    manifest = json.loads((folder / "checkpoint-10" / checkpoints.MANIFEST).read_text())
    assert (manifest["run"], manifest["step"]) == ("mine", 10)
    assert sorted(manifest["files"]) == ["optimizer.pt", "trainer_state.json"]


def fill_up(path):
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while file.write(bytes(1024)):
            pass


def test_a_volume_that_checkpoints_fill_to_the_last_block_is_not_refused(small, tmp_path, caplog):
    config = tuning_config("", [], input={"volume": "in"}, output={"volume": "out"}, checkpoint_seconds=300)
    places = Places(scratch=tmp_path, results=small)
    assert destination.kept(config, places, "mine", Eviction()).write(10, fill("x" * (200 << 10)))
    fill_up(small / "theirs")
    assert destination.find(config, places) == ""
    assert "checkpoints of this run will give way to the adapter" in caplog.text
    checkpoints.drop(checkpoints.place(small, config.intent))
    fill_up(small / "more")
    with pytest.raises(VolumeRefused, match="make the claim larger"):
        destination.find(config, places)
