"""The adapter in the output's volume: put there whole, at its top, and found again by the intent that made it.

Files are written beside and renamed, the card last; a run that was killed in between is finished by the next one. An
earlier adapter is moved into a folder `replaced-by-INTENT` of its own, and put back when its intent is asked for again:
nothing that was trained is lost or trained twice. An adapter's digest is
what `sha256sum adapter_config.json adapter_model.safetensors chat_template.jinja | sha256sum` says, without the last
where there is none; the serving image tells adapters apart by the same.
"""

import contextlib
import errno
import hashlib
import itertools
import json
import os
import re
import stat
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pydantic

from tuning.data.folder import REPLACED
from tuning.errors import NodeTrouble, TuningError, VolumeRefused
from tuning.output import entries
from tuning.report import log

FIELD = "tuning.output.volumeSource"
NAMES = ("adapter_config.json", "adapter_model.safetensors", "chat_template.jinja")
"""An adapter's files, in the order in which its digest has them."""
CARD = "training_summary.json"
TOLD = ("README.md", "loss.svg", "metrics.jsonl")
"""What tells people of it, beside the card that later runs read."""
_OURS = (*NAMES, *TOLD, CARD)
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_REFUSED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_IN_THE_WAY = frozenset({errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENOTEMPTY})


class Card(pydantic.BaseModel, strict=True, frozen=True):
    """What is asked of a card."""

    intent: str = ""
    adapter: str = ""
    """Its digest."""
    files: list[str] = list(NAMES)


def find(folder: Path, intent: str) -> str:
    """The digest of the adapter at the volume's top if this intent made it and it is whole, else empty.

    An empty intent is that of an adapter without a card, as KAITO leaves it.
    """
    with explained(folder):
        if not intent:
            bare = not os.path.lexists(folder / CARD) and all((folder / name).is_file() for name in NAMES[:2])
            return digest(folder) if bare else ""
        incoming = _begun(folder, intent)
        if incoming is None and _card(folder).intent != intent:
            incoming = _fetch_back(folder, intent)
        if incoming:
            _place(incoming, folder, intent)
        card = _card(folder)
        if card.intent != intent:
            return ""
        found = digest(folder)
        if found != card.adapter:
            log.warning("%s: the adapter there is not the one that this intent made: it is made anew", FIELD)
            return ""
        _clear(folder, intent)
    return found


def probe(folder: Path, intent: str) -> None:
    """Raise VolumeRefused unless an adapter can come there and an earlier one go; it is tried, in a folder beside."""
    with explained(folder):
        probed = _incoming(folder, intent)
        probed.mkdir()
        try:
            trial, source = probed / "trial", probed / "source"
            trial.mkdir()
            entries.write(source, b"{}")
            for each in ("one", "another"):
                keep({NAMES[0]: source}, {}, trial, each)
            for old in (folder / name for name in _OURS):
                if os.path.lexists(old) and _is_stuck(old, probed.stat().st_uid):
                    raise VolumeRefused(
                        f"{FIELD}: user {os.getuid()} may not move {old}, which is where the adapter comes; move it"
                        " away, or name another volume"
                    )
        finally:
            entries.remove(probed)


def keep(files: Mapping[str, Path], card: Mapping[str, Any], folder: Path, intent: str) -> str:
    """Put the adapter's files and its card at the top of the volume; returns the adapter's digest."""
    with explained(folder):
        _clear(folder, intent)
        incoming = _incoming(folder, intent)
        incoming.mkdir()
        for name in (*NAMES, *TOLD):
            if name in files:
                with files[name].open("rb") as file:
                    entries.write(incoming / name, file)
        made = digest(incoming)
        text = json.dumps({**card, "intent": intent, "adapter": made}, indent=2, sort_keys=True) + "\n"
        entries.write(incoming / f"{CARD}.part", text.encode())
        (incoming / f"{CARD}.part").rename(incoming / CARD)
        entries.sync(incoming)
        _place(incoming, folder, intent)
    return made


def is_full(error: TuningError) -> bool:
    """Whether there was no room."""
    return isinstance(error.__cause__, OSError) and error.__cause__.errno in FULL


def digest(folder: Path) -> str:
    """Of the adapter in the folder; its files may be links, as a server takes them."""
    sums = ""
    for name in NAMES:
        if found := entries.sha256(Path(os.path.realpath(folder / name))):
            sums += f"{found}  {name}\n"
    return f"sha256:{hashlib.sha256(sums.encode()).hexdigest()}"


def _incoming(folder: Path, intent: str) -> Path:
    """A folder for what comes, under a name that nobody can have taken before."""
    return folder / f".incoming-{intent}-{uuid.uuid4().hex}"


def _leaving(incoming: Path) -> Path:
    """The folder for what goes meanwhile."""
    return incoming.with_name(incoming.name.replace(".incoming-", ".leaving-", 1))


def _all_incoming(folder: Path, intent: str) -> list[Path]:
    """Whatever runs of this intent have left, or somebody under their names."""
    ours = re.compile(rf"\.incoming-{re.escape(intent)}(-[0-9a-f]{{32}})?")
    return [path for path in sorted(folder.iterdir()) if ours.fullmatch(path.name)]


def _begun(folder: Path, intent: str) -> Path | None:
    """What has come as a whole, but its run was killed before all had its place; first what something leaves for."""
    found = (path for path in _all_incoming(folder, intent) if entries.is_folder(path))
    whole = [path for path in found if _card(path).intent == intent]
    return min(whole, key=lambda path: not entries.is_folder(_leaving(path)), default=None)


def _clear(folder: Path, intent: str) -> None:
    """Take away what runs of this intent that were killed have left, unless something leaves for it."""
    for path in _all_incoming(folder, intent):
        if not entries.is_folder(_leaving(path)):
            entries.remove(path)


def _fetch_back(folder: Path, intent: str) -> Path | None:
    """Let an adapter of this intent that another one replaced come again, if it is whole."""
    for earlier in filter(entries.is_folder, sorted(folder.glob(f"{REPLACED}*"))):
        card = _card(earlier)
        if card.intent == intent and card.adapter == digest(earlier):
            incoming = earlier.rename(_incoming(folder, intent))
            log.info("%s: the adapter of this intent is in %s: it is put back", FIELD, earlier.name)
            return incoming
    return None


def _place(incoming: Path, folder: Path, intent: str) -> None:
    """Move what was at the top away, then what has come there; done as often as it takes, it comes to the same."""
    coming, there = {CARD, *_card(incoming).files}, {CARD, *NAMES, *_card(folder).files}
    leaving = _leaving(incoming)
    for name in _OURS:
        old, replaced = folder / name, name in there and name not in coming  # a README may be the user's own
        if os.path.lexists(old) and (replaced or os.path.lexists(incoming / name)):
            if entries.is_folder(leaving) and os.path.lexists(leaving / name):
                _leave(leaving, folder, intent)  # of a run that was killed, before another one came between
            entries.make_folder(leaving)
            old.rename(leaving / name)
    if entries.is_folder(leaving):
        _leave(leaving, folder, intent)
    for name in _OURS:
        if os.path.lexists(incoming / name):
            (incoming / name).rename(folder / name)
    entries.sync(folder)
    entries.remove(incoming)


def _leave(leaving: Path, folder: Path, intent: str) -> None:
    """Give the earlier adapter a name that no other one has."""
    names = (f"{REPLACED}{intent}{suffix}" for suffix in itertools.chain([""], (f"-{n}" for n in itertools.count(2))))
    leaving.rename(next(folder / name for name in names if not os.path.lexists(folder / name)))


def _is_stuck(path: Path, user: int) -> bool:
    """Whether this user may not move it elsewhere: another's in a sticky folder, or a folder that he may not change."""
    top, about = path.parent.stat(), path.lstat()
    anothers = bool(top.st_mode & stat.S_ISVTX) and user not in (0, about.st_uid, top.st_uid)
    return anothers or (stat.S_ISDIR(about.st_mode) and not os.access(path, os.W_OK))


def _card(folder: Path) -> Card:
    """The card; an empty one where there is none, or none of ours."""
    return entries.read(folder / CARD, Card) or Card()


@contextlib.contextmanager
def explained(folder: Path) -> Iterator[None]:
    """Say of what the volume refuses how the user can mend it; of an open file the system names the folder alone."""
    try:
        yield
    except OSError as error:
        raise _of(error, folder) from error


def _of(error: OSError, folder: Path) -> TuningError:
    at = f"{error.filename or folder}" + (f" -> {error.filename2}" if error.filename2 else "")
    where = f"{FIELD}: {error.strerror} at {at}"
    if error.errno in FULL:
        return VolumeRefused(f"{where}; make the claim larger or free some of it")
    if error.errno in _IN_THE_WAY:
        return VolumeRefused(f"{where}: something that is none of ours is in the way; move it away or remove it")
    if error.errno in _REFUSED:
        return VolumeRefused(
            f"{where}: user {os.getuid()} may not write there; name a volume that is not read-only and that group"
            " 65532 may write to"
        )
    return NodeTrouble(f"{where}; another try may do")
