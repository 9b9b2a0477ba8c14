"""Where the data comes from: addresses, an image or a volume; looked at before a GPU is bought, and then on disk."""

import functools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from artifacts import addresses, unpack
from artifacts.weights import hub
from tuning.config import TuningConfig
from tuning.data import fetch, folder, heads, hubset, pull
from tuning.data.heads import Seen
from tuning.data.remote import Remote, Source
from tuning.errors import DataTooLarge
from tuning.places import Places
from tuning.report import log

Look = Callable[[], Seen]


def files(config: TuningConfig, places: Places, on_share: Callable[[float], None]) -> list[fetch.File]:
    """All data files, on disk; `on_share` hears how much of the whole has come, from 0 to 1."""
    only, asked = config.training.dataset.dataset_path, config.input
    if asked.urls:
        with _remote(config) as opened:
            wanted = fetch.picked(_sources(_meant(config, opened)), only)
            return fetch.download(wanted, places.scratch / "data", opened, on_share=on_share)
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
    asked = config.input
    if asked.urls:
        return _peeks(config)
    if asked.volume:
        mounted = _mounted(config, places)
        return {mounted.field: lambda: _look(mounted, config)}
    into = functools.partial(_look_into, config, places, seconds=seconds, most=most, room=room)
    return {f"{pull.FIELD} ({asked.image})": into}


def commits(config: TuningConfig, seen: list[Seen]) -> tuple[str, ...]:
    """What pins the data sets among the addresses, as `Result.data` has it; nothing where there is none."""
    found = dict(pair for each in seen for pair in each.commits)
    return tuple(found.get(url, "") for url in sorted(config.input.urls)) if found else ()


def _mounted(config: TuningConfig, places: Places) -> folder.Folder:
    return folder.Folder(places.data, f"tuning.input.volumeSource ({config.input.volume})")


def _remote(config: TuningConfig) -> Remote:
    return Remote(addresses.Policy(config.allowed_private_cidrs))


def _meant(config: TuningConfig, opened: Remote, *, pace: fetch.Pace = fetch.PACE) -> list[hubset.Files]:
    """The files behind all addresses; those of data sets at the commits that they are pinned to, or are at now."""
    found: list[hubset.Files] = []
    for source in fetch.sources(config.input.urls):
        if (asked := hubset.asked(source, opened.hub)) is None:
            found.append(hubset.Files([source]))
            continue
        left = fetch.MAX_BYTES - sum(each.size for each in _sources(found))
        pinned = config.input.commit(source.url)
        look = functools.partial(hubset.files, source, asked, opened, limit=left, pinned=pinned)
        found.append(fetch.patiently(look, pace))
        log.info("%s: %s", source.label, found[-1].said)
    return found


def _sources(meant: list[hubset.Files]) -> list[Source]:
    return [source for each in meant for source in each.sources]


def _peeks(config: TuningConfig) -> dict[str, Look]:
    """A look at each address; at those together of which one file alone is meant, wherever it may be."""
    only, found = config.training.dataset.dataset_path, fetch.sources(config.input.urls)
    sets = [source for source in found if hubset.asked(source, hub.endpoint())]
    if only and sets:
        return {"tuning.input.urls": functools.partial(_peek_together, config, only)}
    return {source.label: functools.partial(_peek, config, source) for source in fetch.picked(found, only)}


def _peek(config: TuningConfig, source: Source) -> Seen:
    with _remote(config) as opened:  # it is not for several threads
        if (asked := hubset.asked(source, opened.hub)) is None:
            return heads.of_source(source, opened, config.training.dataset)
        pinned = config.input.commit(source.url)
        meant = hubset.files(source, asked, opened, limit=fetch.MAX_BYTES, pinned=pinned)
        seen = heads.of_source(meant.sources[0], opened, config.training.dataset)
        return seen._replace(words=f"{meant.said}: {seen.words}", commits=((meant.url, meant.commit),))


def _peek_together(config: TuningConfig, only: str) -> Seen:
    with _remote(config) as opened:
        meant = _meant(config, opened, pace=fetch.Pace(patience=0.0))
        seen = heads.of_source(fetch.picked(_sources(meant), only)[0], opened, config.training.dataset)
        return seen._replace(commits=tuple((each.url, each.commit) for each in meant if each.commit))


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
