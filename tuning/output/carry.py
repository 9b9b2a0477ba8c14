"""Adapters carried by hand, out of a registry into a folder and back: the command line's `pull` and `push`."""

import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from artifacts import errors as kinds
from artifacts import skopeo, strangers, unpack
from tuning import errors, places
from tuning.config import INTENT
from tuning.errors import ConfigInvalid, DataInvalid
from tuning.output import cards, entries, image, volume
from tuning.output import push as pushing
from tuning.output.patience import Patience

NEEDED = ("adapter_config.json", "adapter_model.safetensors")
ASK_SECONDS = 30.0
PULL_SECONDS = 3600.0
_TELLING = (*volume.TOLD, volume.CARD)
_WAY_IN = "log in there with an account that may pull (docker login, az acr login)"


def pull(asked: str, folder: Path, auth: Path) -> str:
    """Unpack the image's adapter into the folder, which is new or empty; returns the image by digest."""
    with _beside(folder) as at, errors.of_image(asked, _WAY_IN):
        found = skopeo.inspect(asked, authfile=auth, seconds=ASK_SECONDS)
        skopeo.pull(found, Path(at, "blobs"), authfile=auth, seconds=PULL_SECONDS)
        unpack.unpack(Path(at, "blobs"), found.layers, Path(at, "files"), _cap)
        data = Path(at, "files", "data")
        _see_adapter(data, f"{asked}: its /data")
        if folder.exists():
            folder.rmdir()
        data.rename(folder)
    return found.pinned


def _beside(folder: Path) -> tempfile.TemporaryDirectory[str]:
    """Where to unpack, beside a folder that is new or empty."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        if os.path.lexists(folder) and not (entries.is_folder(folder) and not any(folder.iterdir())):
            raise ConfigInvalid(f"{folder}: is not empty, or no folder; name a new folder")
        return tempfile.TemporaryDirectory(dir=folder.parent, prefix=".pull-")
    except OSError as error:
        raise ConfigInvalid(f"{folder}: cannot be made: {error.strerror}; name another folder") from error


def push(folder: Path, target: str, *, auth: Path, waits: Patience, renewed: Sequence[str] = ()) -> str:
    """Push the folder's adapter as an image, for as long as `waits` bears what is wrong; returns it by digest.

    With the card that a run left beside it it becomes the image that this run would have pushed, and is found by its
    intent. Of `renewed`, two intents, an adapter of the first is pushed as of the second: its place was edited.
    """
    settings = _see_adapter(folder, str(folder))
    card = _card(folder)
    files = {path.name: path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith(".")}
    adapter, told = files, {}
    with places.scratch() as scratch:
        if card:
            adapter, told = ({name: files[name] for name in some if name in files} for some in (volume.NAMES, _TELLING))
            if [card.intent] == list(renewed[:1]):
                card = card.model_copy(update={"intent": renewed[1]})
                told |= {volume.CARD: _renewed(folder, card.intent, scratch)}
        marks = cards.annotations(card.model_dump(), card.intent) if card else _marks(files, settings)
        packed = image.write(scratch / "image", adapter, marks, card=told)
        return pushing.push(packed, target, marks[INTENT], auth, scratch=scratch, waits=waits)


def _renewed(folder: Path, intent: str, scratch: Path) -> Path:
    """The card with another intent."""
    card = strangers.parsed(strangers.content(folder / volume.CARD)) | {"intent": intent}
    path = scratch / volume.CARD
    path.write_text(json.dumps(card, indent=2, sort_keys=True) + "\n")
    return path


def _card(folder: Path) -> cards.Written | None:
    """The card of the run that made this very adapter; None where there is none."""
    card = entries.read(folder / volume.CARD, cards.Written)
    return card if card and card.adapter == volume.digest(folder) else None


def _marks(files: dict[str, Path], settings: dict[str, object]) -> dict[str, str]:
    """Of an adapter that nobody tells anything of: what it is made of is its intent."""
    mark = hashlib.sha256()
    for name, path in files.items():
        with path.open("rb") as file:
            mark.update(f"{name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    base = str(settings.get("base_model_name_or_path") or "")
    return {INTENT: mark.hexdigest()[:16], "sh.kaito.model.name": base, "sh.kaito.hera.base-model": base}


def _see_adapter(folder: Path, what: str) -> dict[str, object]:
    """The adapter's settings; DataInvalid unless the folder has one."""
    there = sorted(path.name for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []
    if lacking := [name for name in NEEDED if name not in there]:
        raise DataInvalid(f"{what} has no {' and no '.join(lacking)}, it has {', '.join(there[:10]) or 'nothing'}")
    try:
        settings = strangers.parsed(strangers.content(folder / NEEDED[0]))
    except (OSError, ValueError) as error:
        raise DataInvalid(f"{what}/{NEEDED[0]} cannot be read: {error}") from error
    if not isinstance(settings, dict):
        raise DataInvalid(f"{what}/{NEEDED[0]} is no JSON object; it is no adapter of peft")
    return settings


def _cap(path: str) -> int | None:
    below, _, rest = path.partition("/")
    if below != "data" or not rest:
        return None
    if strangers.inert(path) != path:
        raise kinds.Unusable(f"it has a file named {path[:200]!r}, which a terminal would obey; have it made without")
    return skopeo.MAX_BYTES
