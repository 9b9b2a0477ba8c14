"""The adapter in a volume: whole or not at all, found by its intent, and nothing that was there is lost."""

import json
import logging
import shutil
import subprocess

import pytest

from serving import folders
from serving.config import Adapter
from tuning.config import Exit, Result
from tuning.errors import NodeTrouble, VolumeRefused
from tuning.output import volume

CARD = {"loss": 0.25, "files": sorted(volume.NAMES)}


@pytest.fixture
def claim(tmp_path):
    folder = tmp_path / "claim"
    folder.mkdir()
    (folder / "mine.txt").write_text("the user's own")
    return folder


def texts(folder):
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_an_adapter_is_put_at_the_top_and_found_by_its_intent(made, claim):
    assert volume.find(claim, "one") == ""
    digest = volume.keep(made(), CARD, claim, "one")
    assert volume.find(claim, "one") == digest
    assert volume.find(claim, "other") == ""
    there = texts(claim)
    card = json.loads(there.pop(volume.CARD))
    assert card == CARD | {"intent": "one", "adapter": digest}
    assert there == {
        "mine.txt": "the user's own",
        "adapter_config.json": "{}",
        "adapter_model.safetensors": "weights",
        "chat_template.jinja": "{{ x }}",
    }


@pytest.fixture
def told(tmp_path):
    """What tells of an adapter, as a run writes it."""

    def tell(text):
        files = {name: tmp_path / f"{text}-{name}" for name in volume.TOLD}
        for path in files.values():
            path.write_text(text)
        return files

    return tell


def test_what_tells_of_an_adapter_comes_and_goes_with_it(made, told, claim):
    (claim / "README.md").write_text("the user's own")
    one = {**made(), **told("one")}
    volume.keep(one, {"files": sorted(one)}, claim, "one")
    assert {texts(claim)[name] for name in volume.TOLD} == {"one"}
    assert texts(claim)["replaced-by-one/README.md"] == "the user's own"
    volume.keep(made("weights of two"), CARD, claim, "two")  # of a release that told nothing
    assert not set(volume.TOLD) & set(texts(claim))
    assert {texts(claim)[f"replaced-by-two/{name}"] for name in volume.TOLD} == {"one"}
    assert volume.find(claim, "one")
    assert {texts(claim)[name] for name in volume.TOLD} == {"one"}


def test_a_readme_of_the_user_s_own_stays_where_none_comes(made, claim):
    (claim / "README.md").write_text("the user's own")
    volume.keep(made(), CARD, claim, "one")
    volume.keep(made("other"), CARD, claim, "two")
    assert texts(claim)["README.md"] == "the user's own"


def test_its_digest_is_what_a_shell_and_the_server_say(made, claim):
    digest = volume.keep(made(), CARD, claim, "one")
    command = f"sha256sum {' '.join(volume.NAMES)} | sha256sum"
    said = subprocess.run(command, shell=True, cwd=claim, capture_output=True, text=True, check=True).stdout
    assert digest == f"sha256:{said.split()[0]}"
    assert folders.read(Adapter(name="a", volume=f"v@{digest}", folder=str(claim))).digest == digest


def test_an_earlier_adapter_is_moved_away_and_not_lost(made, claim):
    volume.keep(made("first"), CARD, claim, "one")
    shutil.rmtree(claim.parent / "saved")
    files = made("second")
    del files["chat_template.jinja"]
    digest = volume.keep(files, CARD | {"files": sorted(files)}, claim, "two")
    there = texts(claim)
    assert there["adapter_model.safetensors"] == "second"
    assert there["replaced-by-two/adapter_model.safetensors"] == "first"
    assert there["replaced-by-two/chat_template.jinja"] == "{{ x }}"
    assert json.loads(there["replaced-by-two/training_summary.json"])["intent"] == "one"
    assert "chat_template.jinja" not in there
    assert volume.find(claim, "two") == digest


@pytest.mark.parametrize("moves", range(10))
def test_a_run_that_was_killed_at_any_move_is_finished_by_the_next(made, claim, moves):
    volume.keep(made("first"), CARD, claim, "one")
    before = claim.parent / "before"
    shutil.copytree(claim, before)
    digest = volume.keep(made("second"), CARD, claim, "two")
    after = texts(claim)
    incoming, leaving = before / ".incoming-two", before / ".leaving-two"
    incoming.mkdir()
    leaving.mkdir()
    names = (*volume.NAMES, volume.CARD)
    for name in names:
        shutil.copy(claim / name, incoming / name)
    all_moves = [(before / name, leaving / name) for name in names]
    all_moves += [(leaving, before / "replaced-by-two")]
    all_moves += [(incoming / name, before / name) for name in names]
    for place, target in all_moves[:moves]:
        place.rename(target)
    assert volume.find(before, "two") == digest
    assert texts(before) == after


def kaitos(claim):
    for name in volume.NAMES[:2]:
        (claim / name).write_text("KAITO's")


def test_nothing_is_lost_however_often_one_comes_after_the_other(made, claim):
    kaitos(claim)
    for weights, intent in (("x", "one"), ("y", "two"), ("changed", "one"), ("z", "two"), ("w", "one")):
        volume.keep(made(weights), CARD, claim, intent)
    kept = {text for path, text in texts(claim).items() if path.endswith("adapter_model.safetensors")}
    assert kept == {"KAITO's", "x", "y", "changed", "z", "w"}


def test_what_was_replaced_is_put_back_and_not_trained_again(made, claim):
    kaitos(claim)
    first = volume.keep(made("x"), CARD, claim, "one")
    second = volume.keep(made("y"), CARD, claim, "two")
    for _ in range(2):
        assert volume.find(claim, "one") == first
        assert texts(claim)["adapter_model.safetensors"] == "x"
        assert volume.find(claim, "two") == second
        assert texts(claim)["adapter_model.safetensors"] == "y"
    assert "KAITO's" in texts(claim).values()
    assert len(list(claim.glob("replaced-by-*"))) == 2
    assert not list(claim.glob(".*"))


def test_a_replaced_adapter_that_is_not_whole_is_not_put_back(made, claim):
    volume.keep(made("x"), CARD, claim, "one")
    volume.keep(made("y"), CARD, claim, "two")
    (claim / "replaced-by-two" / "adapter_model.safetensors").write_text("half")
    assert volume.find(claim, "one") == ""
    assert texts(claim)["adapter_model.safetensors"] == "y"


def test_another_run_between_a_kill_and_its_end_loses_nothing(made, claim):
    kaitos(claim)
    digest = volume.keep(made("x"), CARD, claim.parent, "one")  # elsewhere, to be killed on its way
    incoming, leaving = claim / ".incoming-one", claim / ".leaving-one"
    for folder in (incoming, leaving):
        folder.mkdir()
    for name in (*volume.NAMES, volume.CARD):
        (claim.parent / name).rename(incoming / name)
    (claim / volume.NAMES[0]).rename(leaving / volume.NAMES[0])
    volume.keep(made("y"), CARD, claim, "two")
    assert volume.find(claim, "one") == digest
    there = texts(claim)
    assert there["adapter_model.safetensors"] == "x"
    assert sorted(text for path, text in there.items() if path.endswith(volume.NAMES[1])) == ["KAITO's", "x", "y"]
    assert list(there.values()).count("KAITO's") == 2


def test_a_run_that_was_killed_while_it_wrote_leaves_what_was_there(made, claim):
    digest = volume.keep(made("first"), CARD, claim, "one")
    (claim / ".incoming-two").mkdir()
    (claim / ".incoming-two" / "adapter_model.safetensors").write_text("half")
    assert volume.find(claim, "two") == ""
    assert volume.find(claim, "one") == digest
    volume.keep(made("second"), CARD, claim, "two")
    assert texts(claim)["adapter_model.safetensors"] == "second"
    assert not (claim / ".incoming-two").exists()


def test_an_adapter_of_kaitos_is_found_by_no_intent(made, claim):
    assert volume.find(claim, "") == ""
    for name in volume.NAMES[:2]:
        shutil.copy(made()[name], claim / name)
    assert volume.find(claim, "") == volume.digest(claim)
    volume.keep(made(), CARD, claim, "one")
    assert volume.find(claim, "") == ""


def test_an_adapter_that_somebody_changed_is_made_anew(made, claim, caplog):
    volume.keep(made(), CARD, claim, "one")
    (claim / "adapter_model.safetensors").write_text("tampered")
    with caplog.at_level(logging.WARNING):
        assert volume.find(claim, "one") == ""
    assert "is not the one that this intent made" in caplog.text


@pytest.mark.parametrize("card", ["", "[]", '{"intent": 3}', "no JSON"])
def test_cards_of_others_are_no_cards(made, claim, card):
    (claim / volume.CARD).write_text(card)
    assert volume.find(claim, "one") == ""
    volume.keep(made(), CARD, claim, "one")
    assert texts(claim)["replaced-by-one/training_summary.json"] == card


def test_a_volume_that_may_not_be_written_to(claim, as_nobody):
    with as_nobody(), pytest.raises(VolumeRefused, match="user 65532 may not write there; name a volume that is not"):
        volume.probe(claim, "one")
    volume.probe(claim, "one")
    assert list(texts(claim)) == ["mine.txt"]


def test_a_volume_that_is_full_says_so_and_keeps_what_it_had(made, small):
    digest = volume.keep(made(), CARD, small, "one")
    with pytest.raises(VolumeRefused, match=rf"No space left on device at {small}; make the claim larger or free"):
        volume.keep(made("x" * (2 << 20)), CARD, small, "two")
    assert volume.find(small, "one") == digest


def check(tuning, config, **places):
    options = [word for name, path in places.items() for word in (f"--{name}", str(path))]
    return tuning(config, "validate", *options)


BY_VOLUME = {"volume": "persistentVolumeClaim/out"}


def test_a_check_finds_what_is_there_where_the_volume_is_mounted(tuning, config, claim, made, tmp_path):
    asked = config("", input={"volume": "persistentVolumeClaim/in"}, output=BY_VOLUME)
    empty = tmp_path / "in"
    empty.mkdir()
    done = check(tuning, asked, results=claim, data=empty)
    assert (done.code, done.left.reason) == (Exit.BAD_DATA, "DataInvalid")
    assert done.left.message.startswith("tuning.input.volumeSource (persistentVolumeClaim/in): there is no file in it")
    digest = volume.keep(made(), CARD, claim, asked.intent)
    done = check(tuning, asked, results=claim, data=empty)
    assert (done.code, done.left) == (Exit.DONE, Result(adapter=f"persistentVolumeClaim/out@{digest}"))


def test_a_check_leaves_to_the_node_what_is_not_mounted(tuning, config, tmp_path):
    asked = config("", input={"volume": "persistentVolumeClaim/in"}, output=BY_VOLUME)
    done = check(tuning, asked, results=tmp_path / "none", data=tmp_path / "none")
    assert (done.code, done.left) == (Exit.DONE, Result())


def test_a_run_without_its_volume_is_the_nodes_trouble(tuning, config, tmp_path):
    done = tuning(config("", output=BY_VOLUME), "--results", str(tmp_path / "none"))
    assert (done.code, done.left.reason) == (Exit.NODE_TROUBLE, NodeTrouble.__name__)
    assert "tuning.output.volumeSource: persistentVolumeClaim/out is not mounted at" in done.left.message
