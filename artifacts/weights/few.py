"""A few small files of a model, before its weights: what a check shows data by. No more than it has room for."""

import tempfile
from pathlib import Path

from artifacts.weights import hub, image, layers
from artifacts.weights.config import Model

MOST = 64 << 20
"""Of one file: the largest tokenizers have half of it."""


def fetch(model: Model, names: tuple[str, ...], auth: Path) -> dict[str, bytes]:
    """Those of the files that there are; raises why the model cannot be had."""
    return _of_image(model, names, auth) if model.image else _of_hub(model, names)


def _of_hub(model: Model, names: tuple[str, ...]) -> dict[str, bytes]:
    with hub.Hub() as asked:
        read = {name: asked.file(model, name, most=MOST) for name in names}
    return {name: content for name, content in read.items() if content is not None}


def _of_image(model: Model, names: tuple[str, ...], auth: Path) -> dict[str, bytes]:
    """Of an image whose manifest says in which layer a file is, as `kaito-hera model push` makes them."""
    found: dict[str, bytes] = {}
    with image.opened(model, auth) as source, tempfile.TemporaryDirectory() as scratch:
        for layer in image.inspect(source).layers:
            name = image.name(layer)
            if name in names and layer.size <= MOST:
                own = Path(scratch, name)
                source.blob(layer.digest, layer.size, own.with_suffix(".blob"))
                layers.Files(own, str(source.reference), limit=MOST).add(own.with_suffix(".blob"), layer)
                found.update((path.name, path.read_bytes()) for path in own.rglob(name) if path.is_file())
    return found
