"""A volume on which somebody took our names: nothing of his is lost, nothing waits, no training is for nothing."""

import json
import logging
import os
import subprocess

import pytest

from tests.tuning.conftest import tuning_config
from tuning.config import Exit
from tuning.errors import VolumeRefused
from tuning.eviction import Eviction
from tuning.output import checkpoints, destination, entries, volume
from tuning.output.checkpoints import Checkpoint, Checkpoints
from tuning.output.patience import Patience
from tuning.places import Places

CARD = {"loss": 0.25, "files": sorted(volume.NAMES)}
DEEP = "[" * 100_000


@pytest.fixture
def claim(tmp_path):
    folder = tmp_path / "claim"
    folder.mkdir()
    yield folder
    subprocess.run(["rm", "-rf", folder], check=True)  # pytest's own way is not up to the deepest


@pytest.fixture
def config():
    places = {"input": {"volume": "in"}, "output": {"volume": "out"}}
    return tuning_config("", [], intent="one", checkpoint_seconds=300, **places)


@pytest.fixture
def places(tmp_path, claim):
    return Places(scratch=tmp_path, results=claim)


def fill(into):
    (into / "optimizer.pt").write_text("x")


def as_file(path):
    path.write_text("mine")


def as_folder(path):
    path.mkdir()
    (path / "mine").write_text("mine")


def as_dangling_link(path):
    path.symlink_to("nowhere")


def as_link_to_itself(path):
    path.symlink_to(path.name)


def as_link_to_others(path):
    (path.parent / "others" / "checkpoint-1").mkdir(parents=True)
    (path.parent / "others" / ".incoming-1").mkdir()
    path.symlink_to("others")


def as_pipe(path):
    os.mkfifo(path)


def as_deep_json(path):
    path.write_text(DEEP)


def as_huge_file(path):
    with path.open("wb") as file:
        file.truncate(1 << 43)


def as_too_deep_a_folder(path):
    """Deeper than Python's rmtree goes."""
    steps = "mkdir -p " + "/".join(["d"] * 500)
    into = "cd " + "/".join(["d"] * 500)
    path.mkdir()
    subprocess.run(f"for i in 1 2 3; do {steps} && {into} || exit 1; done", shell=True, cwd=path, check=True)


NOT_A_FILE = (as_folder, as_dangling_link, as_link_to_itself, as_link_to_others, as_pipe)
NOT_A_FOLDER = (as_file, as_dangling_link, as_link_to_itself, as_link_to_others, as_pipe)
STRANGE_JSON = (*NOT_A_FILE, as_deep_json, as_huge_file)


def name_of(plant):
    return plant.__name__


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def others_are_there(claim):
    there = claim / "others"
    return not there.exists() or names(there) == [".incoming-1", "checkpoint-1"]


@pytest.mark.parametrize("plant", NOT_A_FOLDER, ids=name_of)
def test_what_is_no_folder_of_checkpoints_is_refused_before_training_and_left_alone(claim, config, places, plant):
    folder = checkpoints.place(claim, "one")
    plant(folder)
    with pytest.raises(
        VolumeRefused, match=r"at .*\.checkpoints-one: something that is none of ours is in the way; move"
    ):
        destination.find(config, places)
    keeping = Checkpoints(folder, "mine", seconds=300)
    assert keeping.newest() is None
    assert not keeping.write(1, fill)
    assert not checkpoints.make_room(folder)
    checkpoints.drop(folder)
    assert os.path.lexists(folder)
    assert others_are_there(claim)


def test_a_folder_of_checkpoints_that_takes_none_is_refused_before_training(claim, config, places, as_nobody):
    checkpoints.place(claim, "one").mkdir()
    claim.chmod(0o777)
    with as_nobody(), pytest.raises(VolumeRefused, match="user 65532 may not write there"):
        destination.find(config, places)
    checkpoints.place(claim, "one").chmod(0o777)
    with as_nobody():
        assert destination.find(config, places) == ""


def test_what_is_not_ours_among_checkpoints_stays(claim):
    folder = checkpoints.place(claim, "one")
    others = ["checkpoint-", "checkpoint-01", "checkpoint-1_0", "checkpoint-best", "checkpoint-٣", "precious"]
    for name in others:
        (folder / name).mkdir(parents=True)
    keeping = Checkpoints(folder, "mine", seconds=300)
    assert keeping.newest() is None
    for step in (1, 2, 3):
        assert keeping.write(step, fill)
    assert names(folder) == sorted([*others, "checkpoint-2", "checkpoint-3"])
    checkpoints.drop(folder)
    assert names(folder) == sorted(others)


@pytest.mark.parametrize("plant", [*NOT_A_FOLDER, as_folder], ids=name_of)
def test_what_has_a_checkpoints_name_gives_way_and_what_it_leads_to_stays(claim, plant):
    folder = checkpoints.place(claim, "one")
    keeping = Checkpoints(folder, "mine", seconds=300)
    assert keeping.write(1, fill)
    plant(folder / "checkpoint-9")
    again = Checkpoints(folder, "mine", seconds=300)
    assert again.newest() == Checkpoint(1, folder / "checkpoint-1")
    assert again.write(9, fill)
    assert Checkpoints(folder, "mine", seconds=300).newest().step == 9
    assert others_are_there(folder)


@pytest.mark.parametrize("plant", STRANGE_JSON, ids=name_of)
@pytest.mark.parametrize("name", [checkpoints.MANIFEST, "optimizer.pt", "scaler.pt"])
def test_a_checkpoint_with_something_strange_in_it_is_passed_over(claim, caplog, name, plant):
    folder = checkpoints.place(claim, "one")
    keeping = Checkpoints(folder, "mine", seconds=300)
    assert keeping.write(1, fill)
    assert keeping.write(2, fill)
    (folder / "checkpoint-2" / name).unlink(missing_ok=True)
    plant(folder / "checkpoint-2" / name)
    with caplog.at_level(logging.WARNING):
        assert Checkpoints(folder, "mine", seconds=300).newest().step == 1
    assert ".checkpoints-one/checkpoint-2 is passed over: " in caplog.text


def test_a_checkpoint_under_another_steps_name_is_passed_over(claim):
    folder = checkpoints.place(claim, "one")
    assert Checkpoints(folder, "mine", seconds=300).write(1, fill)
    (folder / "checkpoint-1").rename(folder / "checkpoint-1000")
    assert Checkpoints(folder, "mine", seconds=300).newest() is None


def test_room_is_made_though_the_oldest_stays(claim, as_nobody):
    folder = checkpoints.place(claim, "one")
    for step in (1, 2):
        (folder / f"checkpoint-{step}").mkdir(parents=True)
    (folder / "checkpoint-1" / "kept").touch()
    for each in (folder, folder / "checkpoint-2"):
        each.chmod(0o777)
    with as_nobody():
        assert checkpoints.make_room(folder)
    assert names(folder) == ["checkpoint-1"]


@pytest.mark.parametrize("plant", [*NOT_A_FOLDER, as_folder, as_too_deep_a_folder], ids=name_of)
def test_what_has_the_names_of_what_comes_and_goes_is_in_nobodys_way(claim, made, config, places, plant):
    volume.keep(made("earlier"), CARD, claim, "another")
    for name in (".incoming-one", ".leaving-one", f".incoming-one-{'0' * 32}", f".leaving-one-{'0' * 32}"):
        if not (claim / "others").exists():
            plant(claim / name)
    assert destination.find(config, places) == ""
    name = destination.put(config, places, made("new"), {"loss": 0.5}, waits=Patience(Eviction(), seconds=0)).name
    assert destination.find(config, places) == name
    assert (claim / volume.NAMES[1]).read_text() == "new"
    assert (claim / "replaced-by-one" / volume.NAMES[1]).read_text() == "earlier"
    assert others_are_there(claim)


@pytest.mark.parametrize("plant", [*NOT_A_FOLDER, as_folder], ids=name_of)
def test_a_half_placed_adapter_finds_its_place_whatever_has_the_name_of_what_goes(claim, made, plant):
    volume.keep(made("earlier"), CARD, claim, "another")
    other = claim.parent / "elsewhere"
    other.mkdir()
    digest = volume.keep(made("new"), CARD, other, "one")
    other.rename(claim / ".incoming-one")
    plant(claim / ".leaving-one")
    assert volume.find(claim, "one") == digest
    kept = [path.read_text() for path in claim.glob(f"replaced-by-one*/{volume.NAMES[1]}")]
    assert kept == ["earlier"]
    assert others_are_there(claim)


@pytest.mark.parametrize("plant", STRANGE_JSON, ids=name_of)
@pytest.mark.parametrize("name", [volume.CARD, *volume.NAMES])
def test_what_has_the_name_of_the_adapters_files_is_moved_away(claim, made, config, places, name, plant):
    volume.keep(made(), CARD, claim, "one")
    (claim / name).unlink()
    plant(claim / name)
    assert destination.find(config, places) == ""
    put = destination.put(config, places, made("new"), {"loss": 0.5}, waits=Patience(Eviction(), seconds=0)).name
    assert destination.find(config, places) == put
    assert os.path.lexists(claim / "replaced-by-one" / name)
    assert others_are_there(claim)


@pytest.mark.parametrize("said", [{"files": 5}, {"files": [[]]}, {"files": "x"}, {"adapter": None}, {"files": {}}])
def test_a_card_of_another_shape_is_no_card(claim, made, said):
    (claim / ".incoming-one").mkdir()
    (claim / ".incoming-one" / volume.CARD).write_text(json.dumps({"intent": "one", **said}))
    assert volume.find(claim, "one") == ""
    digest = volume.keep(made(), CARD, claim, "one")
    assert volume.find(claim, "one") == digest


def test_a_card_that_names_data_in_no_utf_8_is_a_card(claim, made):
    digest = volume.keep(made(), CARD | {"data": [{"name": "\udcff.jsonl"}], "eval_loss": float("nan")}, claim, "one")
    assert volume.find(claim, "one") == digest


def test_an_adapter_of_others_is_not_fetched_back_through_a_link(claim, made):
    volume.keep(made("theirs"), CARD, claim.parent, "one")
    others = claim / "others"
    others.mkdir()
    for name in (*volume.NAMES, volume.CARD):
        (claim.parent / name).rename(others / name)
    (claim / "replaced-by-two").symlink_to("others")
    (claim / ".incoming-one").symlink_to("others")
    assert volume.find(claim, "one") == ""
    assert names(others) == sorted([*volume.NAMES, volume.CARD])


def test_what_may_not_be_moved_is_refused_before_training(claim, config, places, as_nobody):
    (claim / volume.NAMES[1]).write_text("root's")
    claim.chmod(0o1777)
    with as_nobody(), pytest.raises(VolumeRefused, match=r"may not move .*adapter_model.safetensors, which is where"):
        destination.find(config, places)
    claim.chmod(0o777)
    with as_nobody():
        assert destination.find(config, places) == ""
    (claim / volume.CARD).mkdir()
    with as_nobody(), pytest.raises(VolumeRefused, match=r"may not move .*training_summary.json"):
        destination.find(config, places)
    assert names(claim) == sorted([volume.NAMES[1], volume.CARD])


def test_a_check_tells_what_is_in_the_way(tuning, config, claim, tmp_path):
    (claim / ".checkpoints-one").symlink_to("nowhere")
    done = tuning(config, "validate", "--results", str(claim), "--data", str(tmp_path / "none"))
    assert (done.code, done.left.reason, done.left.retryable) == (Exit.REGISTRY_REFUSED, "VolumeRefused", False)


def test_a_try_that_failed_on_its_way_is_finished_by_the_next(claim, made, config, places, as_nobody):
    """The training is over: what was begun is not begun again beside it."""
    volume.keep(made("earlier"), CARD, claim, "another")
    (claim / volume.NAMES[1]).unlink()
    (claim / volume.NAMES[1]).mkdir()  # which only root may move
    claim.chmod(0o777)
    files = made("new")
    with as_nobody(), pytest.raises(VolumeRefused, match="Permission denied"):
        volume.keep(files, CARD, claim, "one")
    (claim / volume.NAMES[1]).rmdir()
    put = destination.put(config, places, made("newer"), {"loss": 0.5}, waits=Patience(Eviction(), seconds=0)).name
    assert put == f"out@{volume.find(claim, 'one')}"
    assert (claim / volume.NAMES[1]).read_text() == "new"
    assert names(claim / "replaced-by-one") == sorted([volume.NAMES[0], volume.NAMES[2], volume.CARD])


def test_a_link_is_taken_away_and_not_followed(tmp_path):
    as_link_to_others(tmp_path / "link")
    entries.remove(tmp_path / "link")
    entries.remove(tmp_path / "never there")
    assert names(tmp_path) == ["others"]
    assert others_are_there(tmp_path)
