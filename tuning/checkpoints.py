"""Checkpoints in the output's volume: what training needs to go on, in folders that are there whole or not at all.

They lie in `.checkpoints-INTENT` and are called `checkpoint-STEP`, as transformers calls them. Each is written beside
and renamed, with a manifest that has every file's sha256 and the identity of the run: rows, settings, model, number
format. The newest two are kept, and none once the adapter has its place. What is in them is the business of who fills
them: nothing here knows torch.
"""

import contextlib
import hashlib
import io
import json
import shutil
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from tuning import volume
from tuning.report import log

MANIFEST = "manifest.json"
_NAME = "checkpoint-"
_KEPT = 2
_SHARE = 20
"""They take a twentieth of the time at most: on a slow volume they are rarer than was asked for."""


class Checkpoint(NamedTuple):
    """A whole one."""

    step: int
    path: Path


class Checkpoints:
    """Those of one run, whatever the attempt."""

    def __init__(
        self, folder: Path, identity: str, *, seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._folder = folder
        self._identity = identity
        self._seconds = seconds
        self._clock = clock
        self._last = clock()
        self._cost = 0.0
        self._good: list[Path] = []

    def newest(self) -> Checkpoint | None:
        """The newest that is whole and of this run; says of each newer one why it is passed over."""
        for step, path in reversed(_all(self._folder)):
            why_not = self._why_not(path)
            if not why_not:
                self._good.append(path)
                return Checkpoint(step, path)
            log.warning("%s: %s is passed over: %s", volume.FIELD, path.relative_to(self._folder.parent), why_not)
        return None

    def due(self) -> bool:
        """Whether it is time for the next one."""
        return self._clock() - self._last >= max(self._seconds, _SHARE * self._cost)

    def fits(self, seconds: float) -> bool:
        """Whether one can be written in so many seconds, by what the last took; the first is tried in any case."""
        return 2 * self._cost < seconds

    def write(self, step: int, fill: Callable[[Path], None]) -> bool:
        """Take one after this step; False, with a warning, when that fails: it is not worth ending the training for."""
        began = self._clock()
        try:
            self._write(step, fill)
        except Exception as error:  # noqa: BLE001 -- torch and safetensors have errors of their own for a full disk
            text = str(error).partition("\n")[0][:300]
            log.warning(
                "%s: no checkpoint after step %d (%s: %s); training goes on, and the next is tried later; if the"
                " volume is full, make the claim larger or free some of it",
                *(volume.FIELD, step, type(error).__name__, text),
            )
            return False
        finally:
            self._last = self._clock()
            self._cost = self._last - began
        return True

    def remove(self, checkpoint: Checkpoint) -> None:
        """Take one away that turned out to be of no use."""
        shutil.rmtree(checkpoint.path, ignore_errors=True)

    def _write(self, step: int, fill: Callable[[Path], None]) -> None:
        self._folder.mkdir(exist_ok=True)
        incoming = self._folder / f".incoming-{uuid.uuid4().hex}"  # a pod on a lost node may still be writing its own
        incoming.mkdir()
        try:
            fill(incoming)
            files = {path.name: _sum(path) for path in sorted(incoming.iterdir())}
            for name in files:
                volume.sync(incoming / name)
            manifest = {"run": self._identity, "step": step, "files": files}
            volume.write(incoming / MANIFEST, io.BytesIO(json.dumps(manifest, indent=2).encode()))
            volume.sync(incoming)
            place = self._folder / f"{_NAME}{step}"
            shutil.rmtree(place, ignore_errors=True)  # one that was passed over
            incoming.rename(place)
            volume.sync(self._folder)
        finally:
            shutil.rmtree(incoming, ignore_errors=True)
        self._good = [*self._good, place][-_KEPT:]
        for path in self._folder.iterdir():
            if path not in self._good:
                shutil.rmtree(path, ignore_errors=True)

    def _why_not(self, path: Path) -> str:
        """Why training cannot go on from there; empty when it can."""
        try:
            manifest = json.loads((path / MANIFEST).read_bytes())
            if manifest["run"] != self._identity:
                return "it is of other rows, settings, another model or number format"
            changed = [name for name, said in manifest["files"].items() if _sum(path / name) != said]
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            return f"it is not whole ({type(error).__name__}: {error})"
        return f"{', '.join(changed)} is not what was written" if changed else ""


def place(results: Path, intent: str) -> Path:
    """The folder for the checkpoints of an intent."""
    return results / f".checkpoints-{intent}"


def identity(**parts: Any) -> str:
    """One word for all that has to be the same for training to go on as if nothing had happened."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def drop(folder: Path) -> None:
    """Take all of them away: the adapter is in its place."""
    shutil.rmtree(folder, ignore_errors=True)


def make_room(folder: Path) -> bool:
    """Take the oldest away, for the finished adapter; False when there is none."""
    for _, path in _all(folder):
        shutil.rmtree(path, ignore_errors=True)
        return not path.exists()
    return False


def _all(folder: Path) -> list[tuple[int, Path]]:
    """All that are called so, whole or not, by their step."""
    found = []
    for path in folder.glob(f"{_NAME}*"):
        with contextlib.suppress(ValueError):
            found.append((int(path.name.removeprefix(_NAME)), path))
    return sorted(found)


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
