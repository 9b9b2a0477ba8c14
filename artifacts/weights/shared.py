"""A folder that several machines share, for models: one of them fetches, the others wait and take what is there.

No lock of the file system's is relied upon: on SMB and some mounts of NFS it holds on one machine only. Whoever fetches
touches a file of a number that it made first. Where nobody touched it for long, the next number decides who goes on
with what was fetched so far.
"""

import contextlib
import hashlib
import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from artifacts.weights import errors
from artifacts.weights.config import Model

log = logging.getLogger("weights")

TOUCH = 5.0
"""Seconds between two signs of life."""
LEFT = 90.0
"""Seconds without one until somebody else goes on."""
_DONE = "complete.json"


def fetch(
    model: Model, cache: Path, load: Callable[[Path], Path], *, left: float = LEFT, me: str | None = None
) -> Path:
    """The folder with the model's files, by `load(place)` if they are not there yet, whoever else wants them.

    `me` is who this is, the pod's name if nothing is given: what it left itself it need not wait for.
    """
    me = os.environ.get("HOSTNAME", "") if me is None else me
    place = cache / hashlib.sha256(f"{model.id} {model.image or model.revision}".encode()).hexdigest()[:16]
    try:
        place.mkdir(parents=True, exist_ok=True)
        with _turn(place, left, me) as mine:
            if mine and not _complete(place):
                _forget(place)
                _note(place, load(place))
    except OSError as error:
        raise errors.StorageTrouble(f"{model.what}: the cache {cache} cannot be used: {error}") from error
    found = _complete(place)
    if found is None:
        raise errors.StorageTrouble(f"{model.what}: the cache {cache} lost what was written to it")
    return found


def _complete(place: Path) -> Path | None:
    """What was fetched to its end and is still there, by the sizes of its files."""
    try:
        noted = json.loads((place / _DONE).read_text())
        folder = place / str(noted["folder"])
        there = {name: (folder / name).stat().st_size for name in noted["files"]}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return folder if there == noted["files"] else None


def _note(place: Path, folder: Path) -> None:
    files = {file.name: file.stat().st_size for file in folder.iterdir() if file.is_file()}
    part = place / f"{_DONE}.part"
    part.write_text(json.dumps({"folder": str(folder.relative_to(place)), "files": files}))
    part.replace(place / _DONE)


def _forget(place: Path) -> None:
    """What was whole and is not any more: those who fetch would think that they have it. What was cut off stays."""
    if (place / _DONE).exists():
        for each in place.iterdir():
            if each.is_dir():
                shutil.rmtree(each)
        (place / _DONE).unlink()


@contextlib.contextmanager
def _turn(place: Path, left: float, me: str) -> Iterator[bool]:
    """Wait until it is ours to fetch (True), or somebody else has (False)."""
    own = _wait(place, left, me)
    if own is None:
        yield False
        return
    over = threading.Event()
    sign = threading.Thread(target=_touch, args=(own, over), daemon=True)
    sign.start()
    try:
        yield True
    finally:
        over.set()
        sign.join()
        with contextlib.suppress(OSError):
            os.utime(own, (0, 0))  # whoever comes next need not wait


def _wait(place: Path, left: float, me: str) -> Path | None:
    """The file that makes it ours; None once the files are there."""
    seen: tuple[Path | None, float] = (None, 0.0)
    since, pause = time.monotonic(), min(1.0, left / 4)
    while not _complete(place):
        last = max(place.glob("turn-*"), default=None, key=_number)
        touched = (last, last.stat().st_mtime if last else 0.0)
        if touched[0] != seen[0]:
            log.info("the cache %s: %s", place, f"{last.name} fetches it, waiting" if last else "nobody has fetched it")
        if touched != seen:
            seen, since = touched, time.monotonic()
        if last is None or not touched[1] or _is_left(last, me) or time.monotonic() - since > left:
            own = place / f"turn-{_number(last) + 1 if last else 1}"
            with contextlib.suppress(FileExistsError), own.open("x") as file:
                file.write(me)
                return own
            continue
        time.sleep(pause)
    return None


def _number(turn: Path) -> int:
    return int(turn.name.partition("-")[2])


def _is_left(turn: Path, me: str) -> bool:
    """By a container of this pod that ended: there is one at a time."""
    return me != "" and turn.read_text() == me


def _touch(turn: Path, over: threading.Event) -> None:
    while not over.wait(TOUCH):
        with contextlib.suppress(OSError):  # a share that is away for a moment
            os.utime(turn)
