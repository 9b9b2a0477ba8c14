"""Builds the content once for all clusters and clones of this machine, and finds it again.

A build is keyed by what it is made from: sources of this package and the libraries' versions. It knows neither
models nor data sets, only that they go below `models/` and `datasets/`.
"""

import hashlib
import importlib.metadata
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from tests.cluster import layout

SOURCES = ("chatter.py", "chatter.yaml", "dataset.py", "facts.py", "facts.yaml", "model.py", "tokenizer.py")
LIBRARIES = ("torch", "transformers", "tokenizers", "safetensors", "huggingface-hub", "pyarrow")


def ensure(say: Callable[[str], None] = print) -> Path:
    """The folder with the content; built now if this machine has none."""
    folder = layout.cache() / "content" / _key()
    with layout.lock("content"):  # of two clusters that come up at once, the second finds what the first has built
        if not folder.is_dir():
            partial = folder.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            _build(partial, say)
            partial.rename(folder)
    say(f"content: {folder}")
    return folder


def _key() -> str:
    digest = hashlib.sha256()
    for source in SOURCES:
        digest.update(source.encode() + b"\0" + Path(__file__).with_name(source).read_bytes())
    for library in LIBRARIES:
        digest.update(f"{library}=={importlib.metadata.version(library)}\n".encode())
    return digest.hexdigest()[:16]


def _build(folder: Path, say: Callable[[str], None]) -> None:
    # Imported here: torch takes seconds, and a cache hit needs none of it.
    from tests.cluster.simulators.content import dataset, model

    for one in model.MODELS:
        repository = folder / "models" / one.id
        repository.mkdir(parents=True)
        started = time.monotonic()
        model.write(repository, one)
        say(f"content: trained {one.id} in {time.monotonic() - started:.0f} s")
    repository = folder / "datasets" / dataset.ID
    repository.mkdir(parents=True)
    say(f"content: wrote {dataset.ID}, {dataset.write(repository)} rows")
