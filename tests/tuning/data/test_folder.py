"""Data on a volume: what of a folder's files is data, and what is said of the rest."""

import hashlib
import logging
import os

import pyarrow
import pyarrow.parquet
import pytest

from tuning.data import folder as folders
from tuning.data import rows
from tuning.errors import ConfigInvalid, DataInvalid, NodeTrouble, VolumeRefused
from tuning.training_config import DatasetConfig

ROWS = '{"text": "x"}\n'
FIELD = "tuning.input.volumeSource (persistentVolumeClaim/data)"


@pytest.fixture
def volume(tmp_path):
    """Makes files below a folder; the folder as the run knows it."""

    def make(**files):
        for name, content in files.items():
            path = tmp_path / "volume" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        (tmp_path / "volume").mkdir(exist_ok=True)
        return folders.Folder(tmp_path / "volume", FIELD)

    return make


def names(found):
    return [file.name for file in found]


def test_all_data_files_of_all_folders_are_used_in_order(volume, tmp_path):
    folder = volume(**{"b.jsonl": ROWS, "a/2.csv": "prompt,completion\na,b\n", "a/1.json": "[]", "c": ROWS})
    pyarrow.parquet.write_table(pyarrow.table({"text": ["x"]}), tmp_path / "volume" / "z.bin")
    shares = []
    found = folders.files(folder, on_share=shares.append)
    assert names(found) == ["b.jsonl", "c", "z.bin", "a/1.json", "a/2.csv"]
    assert {file.field for file in found} == {FIELD}
    assert found[0].sha256 == hashlib.sha256(ROWS.encode()).hexdigest()
    assert shares == sorted(shares)
    assert shares[-1] == 1
    size = sum(file.size for file in found)
    assert folders.words(folders.data(folder)) == f"5 files of csv, json, parquet, {size:,} bytes"


def test_what_is_no_data_is_left_out_and_named(volume, caplog):
    folder = volume(
        **{
            "train.jsonl": ROWS,
            "README.md": "# A title, with a comma",
            "page.parquet": "<!doctype html><title>Log in</title>",
            "old.zip": b"PK\x03\x04rest",
            "adapter_config.json": "{}",
            "replaced-by-abc/adapter_config.json": "{}",
            "lost+found/x.jsonl": ROWS,
            ".hidden.jsonl": ROWS,
            ".incoming-1/y.jsonl": ROWS,
            "empty.csv": "",
        }
    )
    with caplog.at_level(logging.WARNING):
        assert names(folders.files(folder)) == ["train.jsonl"]
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith(
        f"{FIELD}: no data and left out: README.md (text, and its name says nothing of csv or tsv), "
    )
    for other in ("adapter_config.json (an adapter's)", "empty.csv (empty)", "old.zip (a zip archive)"):
        assert other in said
    assert "page.parquet (a web page ('Log in'), most likely for logging in)" in said
    assert "hidden" not in said


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, ": there is no file in it; put parquet, JSON, JSON lines, CSV or Arrow files there"),
        (
            {"a.txt": "hello", "b/c.pdf": b"%PDF-1"},
            ": no data among a.txt (starts with b'hello'), b/c.pdf (a PDF)",
        ),
    ],
)
def test_a_volume_without_data_says_what_is_there(volume, files, words):
    with pytest.raises(DataInvalid) as error:
        folders.data(volume(**files))
    assert str(error.value).startswith(FIELD + words)


def test_links_within_are_followed_as_in_a_volume_of_a_config_map_and_others_are_not(volume, tmp_path):
    folder = volume(**{"..now/rows.jsonl": ROWS})
    (folder.path / "rows.jsonl").symlink_to("..now/rows.jsonl")
    (tmp_path / "secret.jsonl").write_text(ROWS)
    (folder.path / "evil.jsonl").symlink_to(tmp_path / "secret.jsonl")
    (folder.path / "around").symlink_to(folder.path)
    (folder.path / "round.jsonl").symlink_to("round.jsonl")
    assert names(folders.files(folder)) == ["rows.jsonl"]


@pytest.mark.parametrize(
    ("only", "picked"),
    [
        ("data/b/rows.jsonl", ["b/rows.jsonl"]),
        ("/mnt/data/b/rows.jsonl", ["b/rows.jsonl"]),
        ("b", ["b/rows.jsonl", "b/more.jsonl"]),
        ("rows.jsonl", ["a/rows.jsonl", "b/rows.jsonl"]),
    ],
)
def test_dataset_path_picks(volume, only, picked):
    folder = volume(**{"a/rows.jsonl": ROWS, "b/rows.jsonl": ROWS, "b/more.jsonl": ROWS})
    assert sorted(names(folders.files(folder, only))) == sorted(picked)


def test_dataset_path_that_is_not_there(volume):
    with pytest.raises(ConfigInvalid, match=r"dataset_path: 'b.csv' is none of the files in .* \(a.jsonl\); name one"):
        folders.data(volume(**{"a.jsonl": ROWS}), "b.csv")


def test_a_parquet_file_without_its_end(volume):
    with pytest.raises(DataInvalid, match=r"a.parquet: the parquet file of 104 bytes has no end"):
        folders.files(volume(**{"a.parquet": b"PAR1" + bytes(100)}))


def test_more_files_than_anybody_wants(volume):
    folder = volume()
    for number in range(folders.MAX_FILES + 1):
        (folder.path / str(number)).touch()
    with pytest.raises(DataInvalid, match="more than 10,000 files"):
        folders.data(folder)


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(NodeTrouble, match="cannot be read: No such file or directory"):
        folders.data(folders.Folder(tmp_path / "none", FIELD))


def test_a_file_that_may_not_be_read(volume, as_nobody):
    folder = volume(**{"a.jsonl": ROWS})
    (folder.path / "a.jsonl").chmod(0o000)
    with as_nobody(), pytest.raises(VolumeRefused, match=r"user 65532 may not read .*a.jsonl; make files and folders"):
        folders.data(folder)
    assert os.getuid() == 0


def test_what_a_library_saves_on_a_disk_is_read_with_its_rows(volume, tmp_path):
    import datasets

    folder = volume()
    datasets.Dataset.from_list([{"text": "x"}] * 3).save_to_disk(folder.path / "train")
    (file,) = folders.files(folder)
    assert file.name == "train/data-00000-of-00001.arrow"
    assert len(rows.read([file], DatasetConfig(), rows.Dropped())) == 3
