"""Which files of a data set's repository are which split: the conventions of the hub's `datasets` library. Pure.

A README may say it (`configs`); else folders' and files' names do. Held against the library itself by a test.
"""

import collections
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

Splits = dict[str, list[str]]
"""Paths by split."""

FORMATS = {
    "parquet": "parquet",
    "arrow": "arrow",
    "jsonl": "json",
    "json": "json",
    "ndjson": "json",
    "csv": "csv",
    "tsv": "csv",
}
"""What is read here, by what names end with."""

_KEYWORDS = {
    "train": "train|training",
    "validation": "validation|valid|dev|val",
    "test": "test|testing|eval|evaluation",
}
_BETWEEN = "[-._ 0-9]"
_SHARDED = re.compile(r"data/(?P<split>[^/]+)-[0-9]{5}-of-[0-9]{5}[^/]*\.[^/]*")
DESCRIPTIONS = frozenset({"config.json", "dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"})
"""JSON about rows, which `datasets` leaves beside them."""
_IGNORED = DESCRIPTIONS - {"state.json"} | {"README.md"}


def of_config(paths: Iterable[str], config: Mapping[str, Any]) -> Splits:
    """As an entry of the README's `configs` says it."""
    folder = str(config.get("data_dir") or "").strip("/")
    below = [path for path in paths if not folder or path.startswith(f"{folder}/")]
    said = config.get("data_files")
    if not said:
        return of_names(below, folder)
    entries = [{"split": "train", "path": said}] if not _has_splits(said) else said
    found: Splits = {}
    for entry in entries:
        patterns = entry["path"] if isinstance(entry["path"], list) else [entry["path"]]
        globs = [_glob(f"{folder}/{each}" if folder else str(each)) for each in patterns]
        picked = [path for glob in globs for path in sorted(below) if glob.fullmatch(path)]
        found.setdefault(str(entry["split"]), []).extend(dict.fromkeys(picked))
    return found


def _has_splits(said: Any) -> bool:
    return isinstance(said, list) and all(isinstance(each, dict) and {"split", "path"} <= each.keys() for each in said)


def of_names(paths: Iterable[str], folder: str = "") -> Splits:
    """As the names below the folder say it, where nobody else does."""
    start = len(folder) + 1 if folder else 0
    known = {path[start:]: path for path in sorted(paths) if not _is_hidden(path[start:])}
    return {split: [known[name] for name in names] for split, names in _of_names(list(known)).items()}


def _of_names(names: Sequence[str]) -> Splits:
    sharded: Splits = {}
    for name in names:
        if found := _SHARDED.fullmatch(name):
            sharded.setdefault(found["split"], []).append(name)
    return sharded or _by_keywords(names, folders=True) or _by_keywords(names, folders=False) or _all(names)


def _by_keywords(names: Sequence[str], *, folders: bool) -> Splits:
    end = f"(?:{_BETWEEN}.*)?" if folders else f"{_BETWEEN}.*"
    found: Splits = {}
    for split, words in _KEYWORDS.items():
        word = re.compile(f"(?:.*{_BETWEEN})?(?:{words}){end}")
        for name in names:
            path = PurePosixPath(name)
            if any(word.fullmatch(part) for part in (path.parent.parts if folders else (path.name,))):
                found.setdefault(split, []).append(name)
    return found


def _all(names: Sequence[str]) -> Splits:
    return {"train": list(names)} if names else {}


def readable(paths: Iterable[str]) -> list[str]:
    """Those of the commonest format, as the library picks it: others are metadata, or the same in another format."""
    listed = [path for path in paths if PurePosixPath(path).name not in _IGNORED]
    endings = collections.Counter(ending for path in listed for ending in _endings(path))
    order = ("parquet", "arrow", "jsonl", "json", "csv")
    ranked = sorted(endings, key=lambda each: (endings[each], *(each == name for name in order), each), reverse=True)
    kind = next((FORMATS[ending] for ending in ranked if ending in FORMATS), None)
    return [path for path in listed if any(FORMATS.get(ending) == kind for ending in _endings(path)) and kind]


def _endings(path: str) -> list[str]:
    return [ending.lower() for ending in PurePosixPath(path).name.split(".")[1:]]


def _is_hidden(name: str) -> bool:
    return any(part.startswith((".", "__")) for part in PurePosixPath(name).parts)


def _glob(pattern: str) -> re.Pattern[str]:
    """Of a path: ** goes down folders; a range that is none is meant as it stands."""
    parts = re.split(r"(\*\*/|\*\*|\*|\?|\[[^]/]+\])", pattern.strip("/"))
    known = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    try:
        return re.compile("".join(known.get(part) or _one_of(part) for part in parts))
    except re.error:
        return re.compile(re.escape(pattern))


def _one_of(part: str) -> str:
    """Characters in brackets, behind ! all others; or plain text."""
    if not re.fullmatch(r"\[[^]/]+\]", part):
        return re.escape(part)
    return "[" + re.sub("^!", "^", part[1:].replace("\\", "\\\\"))
