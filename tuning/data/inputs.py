"""Where the data comes from: addresses, an image or a volume; looked at before a GPU is bought, and then on disk."""

import functools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from artifacts import addresses, unpack
from tuning.config import TuningConfig
from tuning.data import fetch, folder, heads, pull
from tuning.data.heads import Seen
from tuning.data.remote import Remote, Source
from tuning.errors import DataTooLarge
from tuning.places import Places

Look = Callable[[], Seen]


def files(config: TuningConfig, places: Places, on_share: Callable[[float], None]) -> list[fetch.File]:
    """All data files, on disk; `on_share` hears how much of the whole has come, from 0 to 1."""
    only, asked = config.training.dataset.dataset_path, config.input
    if asked.urls:
        with _remote(config) as opened:
            return fetch.download(fetch.sources(asked.urls, only), places.scratch / "data", opened, on_share=on_share)
    if asked.volume:
        return folder.files(_mounted(config, places), only, on_share=on_share)
    found = pull.patiently(asked.image, places.scratch, places.pull_auth)
    return folder.files(found, only, on_share=on_share)


def looks(
    config: TuningConfig,
    places: Places,
    *,
    seconds: float,
    most: int = unpack.LOOK_STORED,
    room: int = unpack.LOOK_UNPACKED,
) -> dict[str, Look]:
    """What is to be looked at before a GPU is bought, by its name, first rows too; each raises what is to be mended."""
    only, asked = config.training.dataset.dataset_path, config.input
    if asked.urls:
        return {source.label: _peek(config, source) for source in fetch.sources(asked.urls, only)}
    if asked.volume:
        mounted = _mounted(config, places)
        return {mounted.field: lambda: _look(mounted, config)}
    into = functools.partial(_look_into, config, places, seconds=seconds, most=most, room=room)
    return {f"{pull.FIELD} ({asked.image})": into}


def _mounted(config: TuningConfig, places: Places) -> folder.Folder:
    return folder.Folder(places.data, f"tuning.input.volumeSource ({config.input.volume})")


def _remote(config: TuningConfig) -> Remote:
    return Remote(addresses.Policy(config.allowed_private_cidrs))


def _peek(config: TuningConfig, source: Source) -> Look:
    def peek() -> Seen:
        with _remote(config) as opened:  # it is not for several threads
            return heads.of_source(source, opened, config.training.dataset)

    return peek


def _look(mounted: folder.Folder, config: TuningConfig) -> Seen:
    if not mounted.path.is_dir():
        return Seen("is not mounted here: it is looked into on the node")
    return heads.of_folder(mounted, config.training.dataset.dataset_path, config.training.dataset)


def _look_into(config: TuningConfig, places: Places, *, seconds: float, most: int, room: int) -> Seen:
    end = time.monotonic() + seconds
    image = pull.inspect(config.input.image, places.pull_auth, seconds=seconds)
    if sum(layer.size for layer in image.layers) > most:
        return Seen("is there, and so large that it is looked into on the node")
    with tempfile.TemporaryDirectory() as scratch:
        left = end - time.monotonic()
        try:
            found = pull.pull(image, Path(scratch), places.pull_auth, seconds=left, limit=room)
        except DataTooLarge as error:
            return Seen(f"is there, and is looked into on the node: {error}, which is all that there is room for here")
        return _look(found, config)
