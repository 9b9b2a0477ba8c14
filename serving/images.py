"""Adapter images as folders on the scratch volume, one for each digest: pulled once, checked, unpacked, then renamed.

Between `artifacts` and `serving.adapters`; knows no engine. Its errors are serving's, as `tuning.errors` has tuning's:
the two images are blind to each other.
"""

import asyncio
import contextlib
import shutil
import tempfile
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path

from artifacts import errors as kinds
from artifacts import skopeo, unpack
from artifacts.manifest import Layer
from serving import errors
from serving.adapters import Pulled

ASK_SECONDS = 30.0
PULL_SECONDS = 1800.0
PULLING = ".pull-"
"""Prefix of folders in which a pull is under way."""

REQUIRED: Mapping[str, int] = {"adapter_config.json": unpack.MiB, "adapter_model.safetensors": 8 * unpack.GiB}
TEMPLATE: Mapping[str, int] = {"chat_template.jinja": unpack.MiB}
"""Names of an adapter's files, and the most bytes of each; in an image they lie in /data."""
_WANTED = {f"data/{name}": most for name, most in {**REQUIRED, **TEMPLATE}.items()}


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
        manifest = inspect(image, authfile=self._authfile, seconds=ASK_SECONDS)
        folder = self._root / manifest.digest.replace(":", "-")
        with self._locks.setdefault(manifest.digest, threading.Lock()):  # two names may have the same image
            if not folder.is_dir():
                try:
                    self._unpack(manifest, folder)
                except OSError as error:
                    raise errors.NodeTrouble(f"{image} could not be written to {self._root}: {error}") from error
        return Pulled(manifest.digest, folder)

    def _unpack(self, manifest: skopeo.Image, folder: Path) -> None:
        self._root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._root, prefix=PULLING) as temporary:
            blobs, ready = Path(temporary) / "blobs", Path(temporary) / "ready"
            with _as_adapter_errors():
                skopeo.pull(manifest, blobs, authfile=self._authfile, seconds=PULL_SECONDS)
                _unpack_adapter(blobs, manifest.layers, ready)
            (ready / "data").rename(folder)


def inspect(image: str, *, authfile: Path, seconds: float) -> skopeo.Image:
    """What the registry says of an adapter image; raises an error of `serving.errors`."""
    with _as_adapter_errors():
        return skopeo.inspect(image, authfile=authfile, seconds=seconds)


def _unpack_adapter(blobs: Path, layers: Iterable[Layer], target: Path) -> None:
    """Write the adapter's files into the new folder `target`; raises Unusable for what is none."""
    odd = unpack.unpack(blobs, layers, target, _WANTED.get)
    for name in odd:
        raise kinds.Unusable(f"/{name} in the image is not a regular file")
    for name in REQUIRED:
        if not (target / "data" / name).is_file():
            raise kinds.Unusable(f"the image has no /data/{name}")


def _as_adapter_errors() -> contextlib.AbstractContextManager[None]:
    return kinds.translated(_KINDS, remedies=_REMEDIES)


_KINDS: kinds.Table = {
    kinds.NotFound: errors.AdapterImageNotFound,
    kinds.Unusable: errors.NotAnAdapter,
    kinds.Denied: errors.RegistryAuthFailed,
    kinds.HostRefused: errors.RegistryAuthFailed,
    kinds.Away: errors.RegistryUnavailable,
    kinds.MachineTrouble: errors.NodeTrouble,
}
_REMEDIES = {
    kinds.Unusable: "an adapter is an image with /data/adapter_config.json and /data/adapter_model.safetensors",
    kinds.Denied: "name a pull secret for this registry in inference.adapters[].source.imagePullSecrets",
}
