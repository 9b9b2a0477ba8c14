"""Copies of checkpoints in the registry beside the adapter, for where the pod's own disk is all that it has.

One image, `TAG-ckpt-INTENT` in the adapter's repository, always the newest checkpoint that came there whole: one plain
layer a file. They are pushed by a thread, one at a time, rarely, and never at the cost of more than a twentieth of the
time. What a new one replaces is deleted where the registry lets whoever pushes delete, which many do not.
"""

import contextlib
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from artifacts import errors, manifest, unpack, upload
from artifacts import registry as registries
from tuning.errors import ConfigInvalid, PushUnauthorized, RegistryUnavailable
from tuning.eviction import Eviction
from tuning.output import credentials
from tuning.report import log

IDENTITY = "sh.kaito.hera.checkpoint"
"""The annotation with the identity of the run."""
STEP = "sh.kaito.hera.step"
_BY = "kaito-hera tuning"
_SHARE = 20
_SPARE = 5.0
"""Seconds of a pod that is asked to go in which nothing more is begun."""
_TAG = 114
"""Characters that are left of the adapter's tag: a tag has 128."""
_PATIENCE = 300.0
"""Seconds in which a registry that is away may come back: to start anew would cost more."""
_MOST = 64 << 30
"""Bytes of a file."""
_WHOLE = 2 * _MOST
"""Of a checkpoint: the optimizer's state, its largest file, is half of it at least."""


class Copies:
    """Those of one run, whatever the attempt."""

    def __init__(
        self,
        image: str,
        secret: Path,
        intent: str,
        *,
        eviction: Eviction,
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        adapter = credentials.parse(image)
        self.reference = adapter._replace(version=f"{adapter.version[:_TAG]}-ckpt-{intent[:8]}")
        self.step = 0
        """Of the newest that is there; 0 while there is none."""
        self._secret = secret
        self._eviction = eviction
        self._seconds = seconds
        self._clock = clock
        self._began = self._cost = 0.0
        self._digest = ""
        self._leaves = 0
        self._thread: threading.Thread | None = None
        self._to: registries.Registry | None = None
        self._ends = threading.Event()
        """Whether the push that runs is to end, however far it has come."""
        self._sending = ""

    @property
    def in_use(self) -> tuple[str, ...]:
        """Names of folders that are being read."""
        return (self._sending,) if self._runs else ()

    @property
    def _runs(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def due(self) -> bool:
        """Whether it is time for the next one."""
        since = self._clock() - self._began
        return not self._runs and (not self._thread or since >= max(self._seconds, _SHARE * self._cost))

    def start(self, folder: Path, step: int, identity: str) -> None:
        """Begin to push a whole checkpoint."""
        self._began, self._sending, self._ends = self._clock(), folder.name, threading.Event()
        self._thread = threading.Thread(target=self._push, args=(folder, step, identity), daemon=True)
        self._thread.start()

    def finish(self, folder: Path, step: int, identity: str, seconds: float) -> None:
        """The pod goes in so many seconds: have the newest there, if that fits as far as is known."""
        end = self._clock() + seconds - _SPARE
        self._await(end)
        if not self._runs and step > self.step and 2 * self._cost < end - self._clock():
            self.start(folder, step, identity)
            self._await(end)
        self._cut()

    def fetch(self, folder: Path, identity: str, *, patience: float = _PATIENCE) -> Path | None:
        """The one that is there, unpacked into a new folder within `folder`; None where there is none of this run."""
        end, pause = time.monotonic() + patience, 1.0
        while True:
            try:
                return self._fetch(folder, identity)
            except errors.Away as error:
                if time.monotonic() + pause > end:
                    raise RegistryUnavailable(
                        f"{credentials.IMAGE}: {error}; whether {self.reference} has a checkpoint to go on from is not"
                        " known, and to start over would cost more than another try"
                    ) from error
                log.warning("%s; asking for a checkpoint again in %.0f s", error, pause)
            except errors.ArtifactError as error:
                if not isinstance(error, errors.NotFound):
                    log.warning("%s: no checkpoint is gone on from: %s", credentials.IMAGE, error)
                return None
            self._eviction.sleep(pause)
            pause = min(2 * pause, 15)

    def drop(self) -> str:
        """Take away what is there, once the adapter is in its place; what cannot be, in words for people."""
        self._cut()
        try:
            with self._opened() as asked:
                self._delete(manifest.digest(asked.manifest()))
        except errors.NotFound:
            return ""
        except (errors.ArtifactError, ConfigInvalid, PushUnauthorized) as error:
            log.warning("%s: %s cannot be deleted: %s", credentials.IMAGE, self.reference, error)
            more = f" and {self._leaves} manifests without a tag" if self._leaves else ""
            return f"{self.reference}{more}"
        return ""

    def disown(self) -> None:
        """Let no attempt go on from what is there, of no use as it turned out; where nothing may be deleted, too."""
        try:
            with self._opened(push=True) as to:
                layers = manifest.parsed(str(self.reference), to.manifest())["layers"]
                self._replaced(upload.tag(to, layers, {}, _Quiet(), by=_BY), 0)
        except (errors.ArtifactError, ConfigInvalid, PushUnauthorized) as error:
            log.warning("%s: %s stays, and is of no use: %s", credentials.IMAGE, self.reference, error)

    @contextlib.contextmanager
    def _opened(self, **how: bool) -> Iterator[registries.Registry]:
        """With the secret as it is now: it may have been mended since."""
        with registries.Registry(self.reference, credentials.find(self._secret, self.reference), **how) as to:
            yield to

    def _fetch(self, folder: Path, identity: str) -> Path | None:
        with self._opened() as asked, tempfile.TemporaryDirectory(dir=folder, prefix=".incoming-") as scratch:
            body = asked.manifest()
            said = manifest.parsed(str(self.reference), body).get("annotations")
            self._digest = manifest.digest(body)
            if not isinstance(said, dict) or said.get(IDENTITY) != identity:
                raise errors.Unusable(f"{self.reference} is of other rows, settings or another model")
            tree = _tree(Path(scratch, "files"))
            for layer in manifest.read(
                str(self.reference), lambda digest: asked.manifest(digest) if digest else body
            ).layers:
                asked.blob(layer.digest, layer.size, Path(scratch, "blob"))
                tree.add(Path(scratch, "blob"), layer, hashed=True)
                Path(scratch, "blob").unlink(missing_ok=True)
            if not Path(scratch, "files", "data").is_dir():
                raise errors.Unusable(f"{self.reference} has no /data")
            return Path(scratch, "files", "data").rename(tempfile.mkdtemp(dir=folder, prefix=".incoming-"))

    def _push(self, folder: Path, step: int, identity: str) -> None:
        """In a thread of its own: what fails is said, and tried again with the next one."""
        try:
            with self._opened(push=True) as self._to:
                self._see_whether_it_ends()
                digest = self._sent(self._to, folder, {IDENTITY: identity, STEP: str(step)})
        except Exception as error:  # noqa: BLE001 -- nothing that goes wrong here is worth ending the training for
            log.warning("no copy of the checkpoint after step %d in %s: %s", step, self.reference, error)
        else:
            self._replaced(digest, step)
            took = self._clock() - self._began
            log.info("%s has the checkpoint after step %d, in %.3g s", self.reference, step, took)
        finally:
            self._cost = self._clock() - self._began

    def _sent(self, to: registries.Registry, folder: Path, notes: Mapping[str, str]) -> str:
        """The digest that the registry has it by."""
        told = _Quiet()
        layers = [upload.layer(to, f"data/{file.name}", file, told) for file in sorted(folder.iterdir())]
        digest = upload.tag(to, layers, notes, told, by=_BY)
        if manifest.digest(to.manifest()) != digest:
            raise errors.Unusable(f"{self.reference} stored something else than {digest}")
        return digest

    def _replaced(self, digest: str, step: int) -> None:
        """The tag has another one now."""
        former, self._digest, self.step = self._digest, digest, step
        if former not in ("", digest):
            self._forget(former)

    def _forget(self, digest: str) -> None:
        """What was replaced goes, where that is allowed; it is asked once."""
        try:
            if not self._leaves:
                self._delete(digest)
                return
        except errors.Away:
            pass
        except (errors.ArtifactError, ConfigInvalid, PushUnauthorized) as error:
            log.info("%s keeps what is replaced, until its owner deletes it: %s", self.reference.name, error)
        self._leaves += 1

    def _delete(self, digest: str) -> None:
        with self._opened(delete=True) as to:
            to.delete(digest)

    def _await(self, end: float) -> None:
        if self._thread:
            self._thread.join(max(0.0, end - self._clock()))

    def _cut(self) -> None:
        """End what runs: nothing of it comes into the registry any more, also where it has hardly begun."""
        self._ends.set()
        if self._runs:
            if self._to:  # another one's, perhaps; then this one has yet to ask whether it ends
                self._to.cut()
            self._await(self._clock() + _SPARE)

    def _see_whether_it_ends(self) -> None:
        if self._ends.is_set():
            raise errors.Away("the pod goes, or the adapter is in its place")


def _tree(folder: Path) -> unpack.Tree:
    """What a checkpoint's layers are put into."""
    return unpack.Tree(folder, lambda path: _MOST if path.startswith("data/") else None, limit=_WHOLE)


class _Quiet:
    """Nobody wants to hear of each file."""

    def sending(self, count: int) -> None:
        """Not told."""

    def there(self, count: int) -> None:
        """Not told."""

    def say(self, text: str) -> None:
        """Not told."""
