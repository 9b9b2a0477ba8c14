"""Splits by names and by a README, beside the library whose conventions they are."""

import pytest

from tuning.data import splits

TREES = {
    "one file": ["data.jsonl"],
    "two files": ["a.csv", "b.csv"],
    "names": ["train.csv", "test.csv", "README.md"],
    "names in a folder": ["data/train.csv", "data/test.csv"],
    "numbered": ["train_0.csv", "train_1.csv", "test_0.csv", "test_1.csv", "training.csv", "x-train-y.csv"],
    "no split by a part of a word": ["constrained.csv", "trained.csv"],
    "folders": ["data/train/a.csv", "data/train/b.csv", "data/test/a.csv"],
    "folders with more": ["my-train/a.csv", "b_validation_1/x/y.csv", "test2/a.csv", "other/a.csv"],
    "sharded": ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet", "data/odd-00000-of-00001.x"],
    "sharded with a hash": ["data/train-00000-of-00001-54e3756291ca09c6.parquet"],
    "sharded, and others": ["data/random-00000-of-00001.parquet", "data/train.csv", "eval.csv"],
    "dev and valid": ["dev.json", "valid.json", "val-1.json", "evaluation.json"],
    "hidden": [".cache/train.csv", "__pycache__/a.csv", "data/.hidden.csv", "a.csv"],
    "compressed": ["train.jsonl.gz", "test.jsonl.zst"],
    "capitals": ["Train.csv", "TEST.csv"],
    "folders win": ["train/test.csv", "test/train.csv", "validation.csv"],
    "both": ["train-test.csv", "test.csv"],
}


def by_the_library(folder, config=None):
    from datasets.data_files import DataFilesDict, get_data_patterns, sanitize_patterns

    base = folder / ((config or {}).get("data_dir") or "")
    said = (config or {}).get("data_files")
    patterns = sanitize_patterns(said) if said else get_data_patterns(str(base))
    found = DataFilesDict.from_patterns(patterns, base_path=str(base))
    return {split: sorted(path.removeprefix(f"{folder}/") for path in files) for split, files in found.items()}


def written(folder, paths):
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text("x")


@pytest.mark.parametrize("paths", TREES.values(), ids=TREES)
def test_names_say_what_they_say_to_the_library(paths, tmp_path):
    written(tmp_path, paths)
    listed = [path for path in paths if path != "README.md"]
    found = {split: sorted(files) for split, files in splits.of_names(listed).items()}
    assert found == by_the_library(tmp_path)


PATHS = ["a/x.csv", "a/y.csv", "b/x.csv", "b/deep/z.csv", "top.csv", "b/test.csv", "b/train-1.csv"]


@pytest.mark.parametrize(
    "config",
    [
        {"data_files": "top.csv"},
        {"data_files": ["a/*", "b/x.csv"]},
        {"data_files": "**/x.csv"},
        {"data_files": "b/**"},
        {"data_files": "[ab]/?.csv"},
        {"data_files": "[!b]/?.csv"},
        {"data_files": [{"split": "one", "path": "a/*"}, {"split": "two", "path": ["b/x.csv", "top.csv"]}]},
        {"data_dir": "b"},
        {"data_dir": "b", "data_files": "*.csv"},
    ],
)
def test_a_readme_says_what_it_says_to_the_library(config, tmp_path):
    written(tmp_path, PATHS)
    found = {split: sorted(files) for split, files in splits.of_config(PATHS, config).items()}
    assert found == by_the_library(tmp_path, config)


@pytest.mark.parametrize("pattern", ["[z-a].csv", "[!].csv", "[\\]/a.csv"])
def test_a_range_that_is_none_ends_nothing(pattern):
    paths = [*PATHS, "[z-a].csv"]
    assert splits.of_config(paths, {"data_files": pattern})["train"] == [path for path in paths if path == pattern]


@pytest.mark.parametrize(
    ("paths", "found"),
    [
        (["a.csv", "b.csv", "c.jsonl"], ["a.csv", "b.csv"]),
        (["a.csv", "a.parquet"], ["a.parquet"]),
        (["a.jsonl.gz", "b.json", "c.txt"], ["a.jsonl.gz", "b.json"]),
        (["dataset_info.json", "a.parquet", "config.json", "dataset_infos.json"], ["a.parquet"]),
        (["a.PARQUET"], ["a.PARQUET"]),
        (["a.png", "b.tar"], []),
    ],
)
def test_the_commonest_format_is_read(paths, found):
    assert splits.readable(paths) == found
