"""Checkpoints on a disk: what training needs to go on, in folders that are there whole or not at all.

They lie in `.checkpoints-INTENT`, on the output's volume or, where there is none, on the pod's own disk, from where
`copies` brings them into the registry. They are called `checkpoint-STEP`, as transformers calls them. Each is written
beside and renamed, with a manifest that has every file's sha256 and the identity of the run: rows, settings, model. The
newest two are kept, and none once the adapter has its place. What is in them is the business of who fills them: nothing
here knows torch.
"""

import contextlib
import hashlib
import json
import os
import re
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pydantic

from tuning.output import entries, volume
from tuning.output.copies import Copies
from tuning.report import log

MANIFEST = "manifest.json"
_PREFIX = "checkpoint-"
_NAME = re.compile(r"checkpoint-(0|[1-9][0-9]*)", re.ASCII)
_INCOMING = ".incoming-"
_KEPT = 2
_SHARE = 20
"""They take a twentieth of the time at most: on a slow volume they are rarer than was asked for."""


class Manifest(pydantic.BaseModel, strict=True, frozen=True):
    """What a checkpoint says of itself."""

    run: str
    step: int
    files: dict[str, str]
    """Names and sha256 of all of them."""


class Checkpoint(NamedTuple):
    """A whole one."""

    step: int
    path: Path


class Checkpoints:
    """Those of one run, whatever the attempt."""

    def __init__(
        self,
        folder: Path,
        identity: str,
        *,
        seconds: float,
        copies: Copies | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder = folder
        self._identity = identity
        self._seconds = seconds
        self._copies = copies
        self._clock = clock
        self._last = self._stepped = clock()
        self._cost = self._step = 0.0
        self._good: list[str] = []
        self._asked = False
        self._field, self._remedy = (volume.FIELD, "make the claim larger or free some of it")
        if copies:
            self._field, self._remedy = ("the pod's disk", "take nodes with a larger one")

    def newest(self) -> Checkpoint | None:
        """The newest that is whole and of this run; says of each newer one why it is passed over.

        Where the disk has none, that of the registry is brought, if it is of this run.
        """
        found = self._newest()
        if found is None and self._copies and not self._asked:
            self._asked = True
            found = self._newest() if self._bring(self._copies) else None
            self._copies.step = found.step if found else 0
        return found

    def _newest(self) -> Checkpoint | None:
        for step, path in reversed(_all(self._folder)):
            why_not = self._why_not(step, path)
            if not why_not:
                self._good.append(path.name)
                return Checkpoint(step, path)
            log.warning("%s: %s is passed over: %s", self._field, path.relative_to(self._folder.parent), why_not)
        return None

    def begin_step(self) -> None:
        """From now on a step is computed, after whatever came since the last one."""
        self._stepped = self._clock()

    def due(self) -> bool:
        """Whether it is time for the next one; asked after each step."""
        self._step = self._clock() - self._stepped
        return self._clock() - self._last >= max(self._seconds, _SHARE * self._cost)

    def fits(self, seconds: float) -> bool:
        """Whether one can be written in so many seconds, by what the last took; the first is tried in any case."""
        return 2 * self._cost < seconds

    def next_stop(self) -> float:
        """Seconds until the step that runs is done and a checkpoint of it written, as far as is known."""
        left = self._stepped + self._step - self._clock()
        return left + 2 * self._cost if left > 0 else 0.0

    def finish(self, seconds: float) -> int:
        """The pod goes in so many seconds: the step that the next attempt goes on from; 0 where it starts over."""
        if self._copies is None:
            return self._step_of(-1)
        if self._good:
            self._copies.finish(self._folder / self._good[-1], self._step_of(-1), self._identity, seconds)
        return self._copies.step

    def write(self, step: int, fill: Callable[[Path], None]) -> bool:
        """Take one after this step; False, with a warning, when that fails: it is not worth ending the training for."""
        began = self._clock()
        try:
            self._write(step, fill)
        except Exception as error:  # noqa: BLE001 -- torch and safetensors have errors of their own for a full disk
            text = str(error).partition("\n")[0][:300]
            log.warning(
                "%s: no checkpoint after step %d (%s: %s); training goes on, and the next is tried later; if it is"
                " full, %s",
                *(self._field, step, type(error).__name__, text, self._remedy),
            )
            return False
        finally:
            self._last = self._clock()
            self._cost = self._last - began
        log.info("checkpoint after step %d, in %.3g s", step, self._cost)
        if self._copies and self._copies.due():
            self._copies.start(self._folder / self._good[-1], step, self._identity)
        return True

    def remove(self, checkpoint: Checkpoint) -> None:
        """Take one away that turned out to be of no use, also for the attempts to come."""
        entries.remove(checkpoint.path)
        self._good = [name for name in self._good if name != checkpoint.path.name]
        if self._copies and self._copies.step == checkpoint.step:
            self._copies.disown()

    def drop(self) -> str:
        """Take all away, also the registry's: the adapter is in its place. What cannot be is told."""
        drop(self._folder)
        return self._copies.drop() if self._copies else ""

    def _step_of(self, index: int) -> int:
        return int(self._good[index].removeprefix(_PREFIX)) if self._good else 0

    def _bring(self, copies: Copies) -> bool:
        """Have the registry's checkpoint here, for `_newest` to look at like any other."""
        self._folder.mkdir(parents=True, exist_ok=True)
        brought = copies.fetch(self._folder, self._identity)
        manifest = brought and entries.read(brought / MANIFEST, Manifest)
        if not brought or not manifest:
            return False
        target = self._folder / f"{_PREFIX}{manifest.step}"
        entries.remove(target)
        brought.rename(target)
        log.info("%s has the checkpoint after step %d: it is gone on from", copies.reference, manifest.step)
        return True

    def _write(self, step: int, fill: Callable[[Path], None]) -> None:
        self._folder.mkdir(exist_ok=True)
        incoming, name = _incoming(), f"{_PREFIX}{step}"
        with entries.held(self._folder) as within:
            os.mkdir(incoming, dir_fd=within)
            try:
                fill(self._folder / incoming)
                self._seal(step, self._folder / incoming)
                entries.remove(name, within=within)  # one that was passed over
                os.rename(incoming, name, src_dir_fd=within, dst_dir_fd=within)
                os.fsync(within)
            finally:
                entries.remove(incoming, within=within)
            self._good = [*self._good, name][-_KEPT:]
            _remove_all(within, but=[*self._good, *(self._copies.in_use if self._copies else ())])

    def _seal(self, step: int, incoming: Path) -> None:
        """Write down what is in it, for those who ask later whether it is whole."""
        names = sorted(path.name for path in incoming.iterdir())
        for name in names:
            entries.sync(incoming / name)
        files = {name: entries.sha256(incoming / name) for name in names}
        manifest = Manifest.model_validate({"run": self._identity, "step": step, "files": files})
        entries.write(incoming / MANIFEST, manifest.model_dump_json(indent=2).encode())
        entries.sync(incoming)

    def _why_not(self, step: int, path: Path) -> str:
        """Why training cannot go on from there; empty when it can."""
        try:
            manifest = entries.is_folder(path) and entries.read(path / MANIFEST, Manifest)
            if not manifest or manifest.step != step:
                return f"it is not whole (it has no {MANIFEST} of ours)"
            if manifest.run != self._identity:
                return "it is of other rows, settings or another model"
            if others := {MANIFEST, *manifest.files} ^ {each.name for each in path.iterdir()}:
                return f"it is not whole ({', '.join(sorted(others))}: not there, or not ours)"
            changed = [name for name, said in manifest.files.items() if entries.sha256(path / name) != said]
        except OSError as error:
            return f"it is not whole ({type(error).__name__}: {error})"
        return f"{', '.join(changed)} is not what was written" if changed else ""


def place(results: Path, intent: str) -> Path:
    """The folder for the checkpoints of an intent."""
    return results / f".checkpoints-{intent}"


def identity(**parts: Any) -> str:
    """One word for all that has to be the same for training to go on as if nothing had happened."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def probe(folder: Path) -> None:
    """Raise VolumeRefused where something is in the way of them."""
    if not os.path.lexists(folder):
        return
    with volume.explained(folder), entries.held(folder) as within:
        name = _incoming()
        os.mkdir(name, dir_fd=within)
        os.rmdir(name, dir_fd=within)


def drop(folder: Path) -> None:
    """Take all of them away: the adapter is in its place."""
    with contextlib.suppress(OSError), entries.held(folder) as within:
        _remove_all(within)
        folder.rmdir()


def some(folder: Path) -> bool:
    """Whether there are any."""
    return bool(_all(folder))


def make_room(folder: Path) -> bool:
    """Take the oldest away, for the finished adapter; False when there is none."""
    with contextlib.suppress(OSError), entries.held(folder) as within:
        for _, path in _all(folder):
            entries.remove(path.name, within=within)
            if not os.path.lexists(path):
                return True
    return False


def _incoming() -> str:
    """A name for one that comes: a pod on a lost node may still be writing its own."""
    return f"{_INCOMING}{uuid.uuid4().hex}"


def _remove_all(within: int, *, but: Sequence[str] = ()) -> None:
    """Take away what is ours in the folder, by its name; what somebody else put there stays."""
    for name in os.listdir(within):
        if name not in but and (_NAME.fullmatch(name) or name.startswith(_INCOMING)):
            entries.remove(name, within=within)


def _all(folder: Path) -> list[tuple[int, Path]]:
    """All that are called so, whole or not, by their step."""
    if not entries.is_folder(folder):
        return []
    names = (_NAME.fullmatch(path.name) for path in folder.iterdir())
    return sorted((int(name[1]), folder / name[0]) for name in names if name)
