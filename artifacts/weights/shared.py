"""A folder that several machines share, for models: one of them fetches, the others wait and take what is there.

No lock of the file system's is relied upon: on SMB and some mounts of NFS it holds on one machine only. Whoever fetches
touches a file of a number that it made first. Where nobody touched it for long, the next number decides who goes on.
Who was silent may wake up, so each number has a folder of its own: from the one before comes all where that one has
ended for certain, else the files that are whole by their sha256.
"""

import concurrent.futures
import contextlib
import errno
import hashlib
import json
import logging
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from artifacts.weights import errors, hub
from artifacts.weights.config import Model

log = logging.getLogger("weights")

TOUCH = 5.0
"""Seconds between two signs of life."""
LEFT = 90.0
"""Seconds without one until somebody else goes on."""
_DONE = "complete.json"
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_SHA256 = re.compile("[0-9a-f]{64}")


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
        while (found := _complete(place)) is None:
            with _turn(place, left, me) as own:
                if own and not _fill(own, load, me, model):
                    log.warning("the cache %s: another took over from %s, waiting", place, own.name)
    except OSError as error:
        raise errors.StorageTrouble(f"{model.what}: the cache {cache} cannot be used: {error}") from error
    log.info("%s: in the cache, %s", model.what, found)
    return found


def kept(cache: Path) -> list[str]:
    """What the folder holds: each model's folder, its name and size."""
    found = []
    for note in sorted(cache.glob(f"*/{_DONE}")):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            noted = json.loads(note.read_text())
            size = sum(noted["files"].values()) / 2**30
            found.append(f"{note.parent.name} ({str(noted.get('model', 'a model'))[:200]!r}, {size:.1f} GiB)")
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


def _fill(own: Path, load: Callable[[Path], Path], me: str, model: Model) -> bool:
    """Fetch into this turn's folder and note it; False where the turn was lost meanwhile, and what was fetched is not.

    Who has the next turn takes the folder away: that what is written into it fails then is nobody's concern.
    """
    place = own.parent
    if _complete(place):
        return True
    if not _is_last(own):
        return False
    _forget(place)
    folder = _inherit(own, me)
    try:
        found = load(folder)
        _pass_sums(found, model)
    except Exception as error:
        if _is_last(own):
            if any(isinstance(each, OSError) and each.errno in _FULL for each in hub.causes(error)):
                shutil.rmtree(folder, ignore_errors=True)  # a part that never becomes whole would take others' room
            raise
    else:
        if _is_last(own):
            _note(own, found, model)
            if _complete(place) is None:
                raise errors.StorageTrouble(f"{model.what}: the cache {place.parent} lost what was written to it")
            return True
    shutil.rmtree(folder, ignore_errors=True)
    return False


def _inherit(own: Path, me: str) -> Path:
    """Make the folder of this turn, with what can be had of those before."""
    folder, before = _folder(own), own.with_name(f"turn-{_number(own) - 1}")
    if _folder(before).is_dir() and (not before.stat().st_mtime or _is_left(before, me)):
        _folder(before).rename(folder)
    folder.mkdir(exist_ok=True)
    for other in own.parent.glob("files-*"):
        if other != folder:
            _take_whole(other, folder)
            shutil.rmtree(other, ignore_errors=True)
    return folder


def _take_whole(other: Path, folder: Path) -> None:
    """Files that the hub's client has renamed to their sha256, which is the last that it does to them."""
    for blob in other.rglob("blobs/*"):
        target = folder / blob.relative_to(other)
        if _SHA256.fullmatch(blob.name) and not target.exists():
            with contextlib.suppress(OSError):  # then it is fetched again
                target.parent.mkdir(parents=True, exist_ok=True)
                blob.rename(target)


def _pass_sums(folder: Path, model: Model) -> None:
    """Files with the sha256 that the hub gives them: what is wrong here would be so for all who come."""

    def wrong(file: Path) -> bool:
        with file.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest() != file.name

    blobs = {file.resolve() for file in folder.iterdir()}
    named = sorted(blob for blob in blobs if _SHA256.fullmatch(blob.name))
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        bad = [blob for blob, is_wrong in zip(named, pool.map(wrong, named), strict=True) if is_wrong]
    for blob in bad:
        blob.unlink()
    if bad:
        names = ", ".join(sorted(file.name for file in folder.iterdir() if file.resolve() in bad))
        raise errors.StorageTrouble(f"{model.what}: {names} came with another sha256 than the hub's; fetched again")


def _note(own: Path, folder: Path, model: Model) -> None:
    files = {file.name: file.stat().st_size for file in folder.iterdir() if file.is_file()}
    part = own.with_name(f"{_DONE}.{own.name}")
    noted = {"folder": str(folder.relative_to(own.parent)), "files": files, "model": model.image or model.id}
    part.write_text(json.dumps(noted))
    part.replace(own.with_name(_DONE))


def _forget(place: Path) -> None:
    """What was whole and is not any more: those who fetch would think that they have it. What was cut off stays."""
    if (place / _DONE).exists():
        for each in place.iterdir():
            if each.is_dir():
                shutil.rmtree(each)
        (place / _DONE).unlink()


@contextlib.contextmanager
def _turn(place: Path, left: float, me: str) -> Iterator[Path | None]:
    """Wait until it is ours to fetch, by which file, or somebody else has (None)."""
    own = _wait(place, left, me)
    if own is None:
        yield None
        return
    over = threading.Event()
    sign = threading.Thread(target=_touch, args=(own, over), daemon=True)
    sign.start()
    try:
        yield own
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
        last = _last(place)
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


def _last(place: Path) -> Path | None:
    return max(place.glob("turn-*"), default=None, key=_number)


def _is_last(turn: Path) -> bool:
    return _last(turn.parent) == turn


def _folder(turn: Path) -> Path:
    return turn.with_name(f"files-{_number(turn)}")


def _number(turn: Path) -> int:
    return int(turn.name.partition("-")[2])


def _is_left(turn: Path, me: str) -> bool:
    """By a container of this pod that ended: there is one at a time."""
    return me != "" and turn.read_text() == me


def _touch(turn: Path, over: threading.Event) -> None:
    while not over.wait(TOUCH):
        with contextlib.suppress(OSError):  # a share that is away for a moment
            os.utime(turn)
