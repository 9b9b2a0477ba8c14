"""Adapter images as folders on the scratch volume, one for each digest: pulled once, checked, unpacked, then renamed.

Between `serving.registry`, `serving.unpack` and `serving.adapters`; knows no engine.
"""

import asyncio
import shutil
import tempfile
import threading
from collections.abc import Iterable
from pathlib import Path

from serving import errors, registry, unpack
from serving.adapters import Pulled

ASK_SECONDS = 30.0
PULL_SECONDS = 1800.0
PULLING = ".pull-"
"""Prefix of folders in which a pull is under way."""


class Images:
    """The folders under `root`, which are one process's."""

    def __init__(self, root: Path, *, authfile: Path) -> None:
        self._root = root
        self._authfile = authfile
        self._locks: dict[str, threading.Lock] = {}
        for left in root.glob(f"{PULLING}*"):  # by a container that was killed: the volume outlives it
            shutil.rmtree(left, ignore_errors=True)

    async def pull(self, image: str) -> Pulled:
        """The image's adapter files; raises an error of `serving.errors`."""
        return await asyncio.to_thread(self._pull, image)

    def keep_only(self, digests: Iterable[str]) -> None:
        """Give back the disk of images that are no longer listed."""
        kept = {digest.replace(":", "-") for digest in digests}
        for folder in self._root.glob("sha256-*"):
            if folder.name not in kept:
                shutil.rmtree(folder, ignore_errors=True)

    def _pull(self, image: str) -> Pulled:
        manifest = registry.inspect(image, authfile=self._authfile, seconds=ASK_SECONDS)
        folder = self._root / manifest.digest.replace(":", "-")
        with self._locks.setdefault(manifest.digest, threading.Lock()):  # two names may have the same image
            if not folder.is_dir():
                try:
                    self._unpack(manifest, folder)
                except OSError as error:
                    raise errors.NodeTrouble(f"{image} could not be written to {self._root}: {error}") from error
        return Pulled(manifest.digest, folder)

    def _unpack(self, manifest: registry.Manifest, folder: Path) -> None:
        self._root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._root, prefix=PULLING) as temporary:
            blobs, ready = Path(temporary) / "blobs", Path(temporary) / "ready"
            registry.pull(manifest, blobs, authfile=self._authfile, seconds=PULL_SECONDS)
            unpack.unpack(blobs, manifest.layers, ready)
            ready.rename(folder)
