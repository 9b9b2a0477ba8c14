"""What of an image is a model's: which files, in which folders.

Knows paths, no registry. Layers are made by `artifacts.upload` and unpacked by `artifacts.unpack`.
"""

from collections.abc import Iterable
from pathlib import Path

from artifacts import errors, unpack
from artifacts.manifest import Layer
from artifacts.weights import config

PLACES = ("models", "model", "weights", "workspace/tfs/weights", "workspace/weights", "data", "")
"""Folders of an image that may hold the files: ours and KServe's, KAITO's of its eras, the top."""

_SMALL = 256 * unpack.MiB
"""The most bytes of a file that holds no weights: the largest tokenizers have some 40 MB."""
_LARGE = 1 << 50
"""Of one that does: the image's own limit holds."""
_GROWTH, _SLACK = 4, unpack.GiB
"""Weights hardly compress: layers that unpack to more than four times their size and a GiB are not a model's."""
_OTHER = (".bin", ".pth", ".pt", ".gguf", ".onnx", ".msgpack", ".h5")
"""Weights in formats that are not loaded, to be named where there are no others."""


class Files:
    """A model's files out of the layers so far, below a folder of one image's own."""

    def __init__(self, folder: Path, what: str, *, limit: int) -> None:
        self._folder = folder
        self._what = what
        self._others: set[str] = set()
        self._tree = unpack.Tree(folder, self._cap, limit=limit)

    def add(self, blob: Path, layer: Layer) -> None:
        """Unpack one layer, whose digest was checked when it was fetched, over what there is."""
        try:
            self._tree.add(blob, layer, hashed=True)
        except errors.Unusable as error:
            raise type(error)(f"{self._what}: {error}") from error
        for name in sorted(self._tree.odd):
            raise errors.Unusable(f"{self._what}: /{name} is no regular file; copy files, not links or holes, into it")

    def model(self) -> Path:
        """The folder that has a model's files; raises Unusable with what is there instead."""
        seen = f"; it has weights in other formats, which are not loaded: {', '.join(sorted(self._others)[:3])}"
        return find(self._folder, self._what, seen if self._others else "")

    def _cap(self, path: str) -> int | None:
        place, _, name = path.rpartition("/")
        if place in PLACES and config.is_wanted(name):
            return _LARGE if name.endswith(".safetensors") else _SMALL
        if place in PLACES and name.endswith(_OTHER):
            self._others.add(path)
        return None


def find(folder: Path, what: str, but: str = "") -> Path:
    """Where in an image's files a model is; raises Unusable, which ends with what it has `but` that."""
    for place in PLACES:
        found = folder / place
        if (found / "config.json").is_file() and any(found.glob("*.safetensors")):
            return found
    where = ", ".join(f"/{place}" for place in PLACES)
    raise errors.Unusable(f"{what} has no config.json with .safetensors beside it in any of {where}{but}")


def limit(layers: Iterable[Layer]) -> int:
    """The most bytes that these layers of a model unpack to."""
    return _GROWTH * sum(layer.size for layer in layers) + _SLACK
