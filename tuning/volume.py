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
import io
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from tuning.errors import NodeTrouble, TuningError, VolumeRefused
from tuning.folder import REPLACED
from tuning.report import log

FIELD = "tuning.output.volumeSource"
NAMES = ("adapter_config.json", "adapter_model.safetensors", "chat_template.jinja")
"""An adapter's files, in the order in which its digest has them."""
CARD = "training_summary.json"
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_REFUSED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


def find(folder: Path, intent: str) -> str:
    """The digest of the adapter at the volume's top if this intent made it and it is whole, else empty.

    An empty intent is that of an adapter without a card, as KAITO leaves it.
    """
    with _explained():
        if not intent:
            bare = not (folder / CARD).exists() and all((folder / name).is_file() for name in NAMES[:2])
            return digest(folder) if bare else ""
        incoming = _incoming(folder, intent)
        if _card(incoming).get("intent") != intent and _card(folder).get("intent") != intent:
            _fetch_back(folder, incoming, intent)
        if _card(incoming).get("intent") == intent:  # complete, but its run was killed before all had its place
            _place(incoming, folder, intent)
        card = _card(folder)
        if card.get("intent") != intent:
            return ""
        found = digest(folder)
    if found != card.get("adapter"):
        log.warning("%s: the adapter there is not the one that this intent made: it is made anew", FIELD)
        return ""
    return found


def probe(folder: Path) -> None:
    """Raise VolumeRefused unless files can be written there."""
    with _explained():
        probed = folder / f".probe-{os.getpid()}"
        probed.write_bytes(b"x")
        probed.unlink()


def keep(files: Mapping[str, Path], card: Mapping[str, Any], folder: Path, intent: str) -> str:
    """Put the adapter's files and its card at the top of the volume; returns the adapter's digest."""
    with _explained():
        incoming = _incoming(folder, intent)
        shutil.rmtree(incoming, ignore_errors=True)
        incoming.mkdir()
        for name in NAMES:
            if name in files:
                with files[name].open("rb") as file:
                    write(incoming / name, file)
        made = digest(incoming)
        text = json.dumps({**card, "intent": intent, "adapter": made}, indent=2, sort_keys=True) + "\n"
        write(incoming / f"{CARD}.part", io.BytesIO(text.encode()))
        (incoming / f"{CARD}.part").rename(incoming / CARD)
        sync(incoming)
        _place(incoming, folder, intent)
    return made


def is_full(error: TuningError) -> bool:
    """Whether there was no room."""
    return isinstance(error.__cause__, OSError) and error.__cause__.errno in _FULL


def digest(folder: Path) -> str:
    """Of the adapter in the folder."""
    sums = ""
    for name in NAMES:
        with contextlib.suppress(FileNotFoundError), (folder / name).open("rb") as file:
            sums += f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {name}\n"
    return f"sha256:{hashlib.sha256(sums.encode()).hexdigest()}"


def _incoming(folder: Path, intent: str) -> Path:
    return folder / f".incoming-{intent}"


def _fetch_back(folder: Path, incoming: Path, intent: str) -> None:
    """Let an adapter of this intent that another one replaced come again, if it is whole."""
    for earlier in sorted(folder.glob(f"{REPLACED}*")):
        card = _card(earlier)
        if card.get("intent") == intent and card.get("adapter") == digest(earlier):
            shutil.rmtree(incoming, ignore_errors=True)
            earlier.rename(incoming)
            log.info("%s: the adapter of this intent is in %s: it is put back", FIELD, earlier.name)
            return


def _place(incoming: Path, folder: Path, intent: str) -> None:
    """Move what was at the top away, then what has come there; done as often as it takes, it comes to the same."""
    coming = {CARD, *_card(incoming).get("files", NAMES)}
    leaving = folder / f".leaving-{intent}"
    for name in (*NAMES, CARD):
        old = folder / name
        if old.exists() and ((incoming / name).exists() or name not in coming):
            if (leaving / name).exists():  # of a run that was killed, before another one came between
                _leave(leaving, folder, intent)
            leaving.mkdir(exist_ok=True)
            old.rename(leaving / name)
    if leaving.exists():
        _leave(leaving, folder, intent)
    for name in (*NAMES, CARD):
        if (incoming / name).exists():
            (incoming / name).rename(folder / name)
    sync(folder)
    shutil.rmtree(incoming, ignore_errors=True)


def _leave(leaving: Path, folder: Path, intent: str) -> None:
    """Give the earlier adapter a name that no other one has."""
    names = (folder / f"{REPLACED}{intent}{suffix}" for suffix in ("", *(f"-{number}" for number in range(2, 10_000))))
    leaving.rename(next(name for name in names if not os.path.lexists(name)))


def _card(folder: Path) -> dict[str, Any]:
    """The card; empty where there is none, or none of ours."""
    try:
        found = json.loads((folder / CARD).read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def write(path: Path, content: BinaryIO) -> None:
    """The content as a file that a power cut leaves alone."""
    with path.open("wb") as file:
        shutil.copyfileobj(content, file, 1 << 20)
        file.flush()
        os.fsync(file.fileno())


def sync(path: Path) -> None:
    """Have the volume keep a folder's names, or a file's content, before anything that follows."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _of(error) from error


def _of(error: OSError) -> TuningError:
    where = f"{FIELD}: {error.strerror} at {error.filename}"
    if error.errno in _FULL:
        return VolumeRefused(f"{where}; make the claim larger or free some of it")
    if error.errno in _REFUSED:
        return VolumeRefused(
            f"{where}: user {os.getuid()} may not write there; name a volume that is not read-only and that group"
            " 65532 may write to"
        )
    return NodeTrouble(f"{where}; another try may do")
