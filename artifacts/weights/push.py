"""`kaito-hera model push`: a model's files as an image, one plain layer a file, the same bytes for the same files.

Nothing is written to the disk but what the hub's own client keeps in its cache. What the registry has is not sent
again, so a push that was cut is begun anew without loss. The files lie in /models, where KServe too looks for them.
"""

import concurrent.futures
import importlib.util
import sys
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import presets
from artifacts import errors as kinds
from artifacts import registry, upload
from artifacts.weights import errors, hub, image
from artifacts.weights.config import Model

_FOLDER = "models"
_AT_ONCE = 3
_ANEW = "\r\x1b[K"
"""Back to the line's beginning, and wipe it."""


class Pushed(NamedTuple):
    """An image that is in its registry."""

    image: str
    """By digest."""
    bytes: int
    sent: int
    """Of these, what the registry did not have."""


def push(
    model: Model, target: str, *, folder: Path | None = None, auth: Path | None = None, out: TextIO = sys.stderr
) -> Pushed:
    """Make the image of the model, whose files are in `folder` or come from the hub, and push it."""
    way_in = "log in there with an account that may push (docker login, az acr login)"
    with errors.of_image("IMAGE", way_in), registry.of(target, auth, push=True) as to:
        return _pushed(model, to, folder, out)


def _pushed(model: Model, to: registry.Registry, folder: Path | None, out: TextIO) -> Pushed:
    if ":" in to.reference.version:
        raise kinds.NotFound(f"{to.reference}: a push gives a tag; leave the digest out")
    files = image.local(_source(model, folder))
    progress = _Progress(sum(file.stat().st_size for file in files.values()), out)
    with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as pool:
        doing = [pool.submit(_layer, to, name, file, progress) for name, file in files.items()]
        try:
            concurrent.futures.wait(doing, return_when=concurrent.futures.FIRST_EXCEPTION)
            made = [future.result() for future in doing if future.done()]
        except BaseException:
            to.cut()  # or the pool would wait for what nobody wants any more
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    revision = {} if folder else {image.REVISION: model.revision}
    digest = upload.tag(to, made, {image.MODEL: model.id, **revision}, progress, by="kaito-hera model push")
    progress.end()
    pushed = f"{to.reference.name}@{digest}"
    return Pushed(pushed, sum(layer["size"] for layer in made), progress.sent)


def model(name: str, revision: str | None, *, local: bool = False) -> Model:
    """The model that a person names: a preset at its pinned commit, or ORGANISATION/NAME at the commit it has now.

    With `local` files the hub is not asked.
    """
    try:
        known = presets.preset(name)
    except presets.UnknownNameError as error:
        if name.startswith((".", "/", "~")):
            raise errors.ModelNotFound(f"ID {name}: is a path; name the model, and its folder with --folder") from error
        if not presets.is_hub_id(name):
            raise errors.ModelNotFound(f"ID: {error}") from error
        named = Model(id=name, revision=revision or "main", field="ID")
    else:
        named = Model(id=known.hub_id, revision=revision or known.hub_revision, field="ID")
    return named if local else _at_commit(named)


def _at_commit(named: Model) -> Model:
    with hub.Hub() as asked:
        return named.model_copy(update={"revision": asked.commit(named)})


def _source(model: Model, folder: Path | None) -> Path:
    if folder is None:
        if importlib.util.find_spec("huggingface_hub") is None:
            raise errors.ModelUnusable(
                f"{model.what}: to download it the hub's client is needed: pip install huggingface_hub; or give its"
                " files with --folder"
            )
        return hub.complete(model.what, hub.download(model, None))
    if not folder.is_dir():
        raise errors.ModelNotFound(f"--folder {folder}: is no folder")
    return hub.complete(f"--folder {folder}", folder)


def _layer(to: registry.Registry, name: str, file: Path, progress: "_Progress") -> dict[str, Any]:
    """One file's layer, in the registry; its descriptor, which names the file."""
    return {**upload.layer(to, f"{_FOLDER}/{name}", file, progress), "annotations": {image.FILE: name}}


class _Progress:
    """One line that is written over on a terminal; elsewhere a line for each file."""

    def __init__(self, total: int, out: TextIO) -> None:
        self._total = max(total, 1)
        self._out = out
        self._terminal = out.isatty()
        self._lock = threading.Lock()
        self._began = time.monotonic()
        self._drawn = 0.0
        self._there = 0
        self.sent = 0

    def sending(self, count: int) -> None:
        """So many bytes more were sent."""
        with self._lock:
            self.sent += count
            self._draw()

    def there(self, count: int) -> None:
        """So many bytes need not be sent."""
        with self._lock:
            self._there += count
            self._draw()

    def say(self, text: str) -> None:
        """A line that stays."""
        with self._lock:
            self._out.write(f"{_ANEW if self._terminal else ''}{text}\n")
            self._draw(now=True)
            self._out.flush()

    def end(self) -> None:
        """Nothing more is drawn."""
        if self._terminal:
            self._out.write(_ANEW)
            self._out.flush()

    def _draw(self, *, now: bool = False) -> None:
        moment = time.monotonic()
        if not self._terminal or not (now or moment - self._drawn > 0.2):
            return
        self._drawn = moment
        share = min(1.0, (self.sent + self._there) / self._total)
        speed = self.sent / max(moment - self._began, 0.001)
        bar = "#" * int(24 * share)
        self._out.write(f"{_ANEW}[{bar:.<24}] {100 * share:3.0f} %  {speed / 1e6:.0f} MB/s")
        self._out.flush()
