"""Data files in a folder, a mounted volume or an unpacked image: which of its files are data, by what is in them.

A volume holds what people put there: what is no data is named in the log and left out. Knows no rows and no networks.
"""

import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from tuning.data import formats, splits
from tuning.data.fetch import MAX_BYTES, File
from tuning.errors import ConfigInvalid, DataInvalid, NodeTrouble, TuningError, VolumeRefused
from tuning.report import log

MAX_FILES = 10_000
SHOWN = 20

_ADAPTER = ("adapter_config.json", "adapter_model.safetensors", "chat_template.jinja")
OURS = frozenset({*_ADAPTER, "metrics.jsonl", "training_summary.json"})
"""An adapter's files: a claim may be a run's input and its output."""
REPLACED = "replaced-by-"
"""Folders with earlier adapters begin so, see `tuning.output.volume`."""

CSV_NAMES = ("csv", "tsv")
"""Any text with a comma in its first line could be CSV; in a folder of many files its name has to say it."""


class Folder(NamedTuple):
    """A folder of the user's."""

    path: Path
    field: str
    """What messages call it: `tuning.input.volumeSource (PersistentVolumeClaim team/data)`."""


class Candidate(NamedTuple):
    """A file that looks like data."""

    name: str
    path: Path
    size: int
    kind: formats.Format


def words(found: list[Candidate]) -> str:
    """The files, in a few words."""
    kinds = {each.kind for each in found}
    return f"{len(found)} files of {', '.join(sorted(kinds))}, {sum(each.size for each in found):,} bytes"


def files(
    folder: Folder, only: str | None = None, *, on_share: Callable[[float], None] = lambda _share: None
) -> list[File]:
    """All data files, in the order of their names; `only` picks one. `on_share` hears how much of them was read."""
    found = data(folder, only)
    whole, done, read = sum(each.size for each in found) or 1, 0, []
    for each in found:
        try:
            formats.refuse_cut(each.path)
            with each.path.open("rb") as opened:
                digest = hashlib.file_digest(opened, "sha256").hexdigest()
        except DataInvalid as error:
            raise DataInvalid(f"{folder.field}: {each.name}: {error}") from error
        except OSError as error:
            raise unreadable(folder, error) from error
        read.append(File(folder.field, each.name, each.path, each.size, digest))
        log.info("%s: %s, %d bytes, sha256 %s", folder.field, each.name, each.size, digest)
        done += each.size
        on_share(done / whole)
    return read


def data(folder: Folder, only: str | None = None) -> list[Candidate]:
    """The files that are data; raises what the user must mend."""
    found, others = judged(folder)
    if others:
        log.warning("%s: no data and left out: %s", folder.field, _listed(others))
    if not found:
        there = f"no data among {_listed(others)}" if others else "there is no file in it"
        raise DataInvalid(f"{folder.field}: {there}; put parquet, JSON, JSON lines, CSV or Arrow files there")
    picked = _pick(folder, found, only) if only else found
    if (size := sum(each.size for each in picked)) > MAX_BYTES:
        raise DataInvalid(f"{folder.field}: the data has {size:,} bytes, more than {MAX_BYTES:,}; give less")
    return picked


def judged(folder: Folder) -> tuple[list[Candidate], list[str]]:
    """The files that are data, and the others with what they are instead."""
    found: list[Candidate] = []
    others: list[str] = []
    try:
        for path in _walk(folder):
            name = path.relative_to(folder.path).as_posix()
            what = _judge(folder, path, name)
            if isinstance(what, Candidate):
                found.append(what)
            else:
                others.append(f"{name} ({what})")
    except OSError as error:
        raise unreadable(folder, error) from error
    return found, others


def _walk(folder: Folder) -> Iterator[Path]:
    """The files, in order; what is hidden belongs to a file system or a tool."""

    def fail(error: OSError) -> None:
        raise error

    count = 0
    for parent, folders, names in os.walk(folder.path, onerror=fail):
        folders[:] = sorted(name for name in folders if not name.startswith((".", REPLACED)) and name != "lost+found")
        for name in sorted(names):
            if not name.startswith("."):
                count += 1
                yield Path(parent, name)
            if count > MAX_FILES:
                raise DataInvalid(f"{folder.field}: has more than {MAX_FILES:,} files; put the rows into fewer")


def _judge(folder: Folder, path: Path, name: str) -> Candidate | str:
    """The file as data, or why it is none."""
    real = Path(os.path.realpath(path))  # which bears links that lead round
    if path.name in OURS:
        return "an adapter's"
    if path.name in splits.DESCRIPTIONS:
        return "a description of data"
    if not real.is_file() or not real.is_relative_to(folder.path.resolve()):
        return "no regular file of this folder"
    with real.open("rb") as file:
        head = file.read(formats.HEAD_BYTES)
    try:
        kind = formats.sniff(head)
    except DataInvalid as error:
        return str(error).partition(";")[0].removeprefix("the file ").removeprefix("is ")
    if kind == "csv" and not any(word in path.name.lower() for word in CSV_NAMES):
        return "text, and its name says nothing of csv or tsv"
    return Candidate(name, real, real.stat().st_size, kind)


def _pick(folder: Folder, found: list[Candidate], only: str) -> list[Candidate]:
    """Those that DatasetConfig.dataset_path means: a path below /mnt or below the folder, or the name alone."""
    asked = PurePosixPath(only.strip("/").removeprefix("mnt/").removeprefix("data/")).as_posix()
    exact = [each for each in found if each.name == asked or each.name.startswith(f"{asked}/")]
    picked = exact or [each for each in found if PurePosixPath(each.name).name == PurePosixPath(only).name]
    if not picked:
        names = _listed([each.name for each in found])
        raise ConfigInvalid(
            f"DatasetConfig.dataset_path: {only!r} is none of the files in {folder.field} ({names}); name one of them"
        )
    return picked


def _listed(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def unreadable(folder: Folder, error: OSError) -> TuningError:
    """What a disk's error means; of an open file the system names none."""
    where = error.filename or folder.path
    if error.errno in (errno.EACCES, errno.EPERM):
        return VolumeRefused(
            f"{folder.field}: user {os.getuid()} may not read {where}; "
            "make files and folders readable for all, or for group 65532"
        )
    return NodeTrouble(f"{folder.field}: cannot be read: {error.strerror} at {where}; another try may do")
