"""Where the adapter goes: into a registry or a volume; either way found again by its intent, and never made twice."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tuning.config import TuningConfig
from tuning.errors import NodeTrouble, TuningError, explain
from tuning.eviction import Eviction
from tuning.output import cards, checkpoints, copies, image, push, registry, volume
from tuning.output.patience import Patience
from tuning.places import Places
from tuning.report import log


class Put(NamedTuple):
    """An adapter in its place."""

    name: str
    """By digest."""
    left: str = ""
    """What of the run's checkpoints nobody here may delete."""


def find(config: TuningConfig, places: Places) -> str:
    """The adapter that this intent made, by digest, else empty; raises unless another could be put there."""
    if config.output.image:
        asked = registry.Registry(config.output.image, places.push_auth)
        found = asked.ask(config.intent)
        if found and config.intent and config.checkpoint_seconds:
            _copies(config, places, Eviction()).drop()
        return found and f"{asked.reference.name}@{found}"
    if not places.results.is_dir():
        raise NodeTrouble(f"{volume.FIELD}: {config.output.volume} is not mounted at {places.results}")
    folder = checkpoints.place(places.results, config.intent)
    found = volume.find(places.results, config.intent)
    if not found:
        _probe(config, places, folder)
        return ""
    checkpoints.drop(folder)  # its run may have been killed before it did
    return f"{config.output.volume}@{found}"


def _probe(config: TuningConfig, places: Places, folder: Path) -> None:
    try:
        if config.checkpoint_seconds:
            checkpoints.probe(folder)
        volume.probe(places.results, config.intent)
    except TuningError as error:
        if not (volume.is_full(error) and checkpoints.some(folder)):
            raise
        log.warning("%s; checkpoints of this run will give way to the adapter", error)


def kept(config: TuningConfig, places: Places, identity: str, eviction: Eviction) -> checkpoints.Checkpoints | None:
    """Where training is kept from being lost while it runs; None where the user wants none."""
    if not config.checkpoint_seconds:
        return None
    folder = _folder(config, places)
    if others := sorted(path.name for path in folder.parent.glob(".checkpoints-*") if path != folder):
        log.info("%s: %s are of other runs; delete them once these need them no more", volume.FIELD, ", ".join(others))
    copied = _copies(config, places, eviction) if config.output.image else None
    made = checkpoints.Checkpoints(folder, identity, seconds=config.checkpoint_seconds, copies=copied)
    eviction.keeper = made
    return made


def put(
    config: TuningConfig,
    places: Places,
    files: Mapping[str, Path],
    card: Mapping[str, Any],
    *,
    waits: Patience,
    saved: checkpoints.Checkpoints | None = None,
) -> Put:
    """Bring the adapter's files and its card where they are to go; what was `saved` on the way goes then."""
    if config.output.volume:
        return Put(f"{config.output.volume}@{_keep(config, places, files, card, waits)}")
    packed = _packed(config, places, files, card, waits)
    made = push.push(packed, config.output.image, config.intent, places.push_auth, scratch=places.scratch, waits=waits)
    return Put(made, saved.drop() if saved else "")


def _packed(
    config: TuningConfig, places: Places, files: Mapping[str, Path], card: Mapping[str, Any], waits: Patience
) -> image.Image:
    """The image on the pod's disk; what is full there now may not be later."""
    written = places.scratch / "adapter" / volume.CARD
    adapter = {name: path for name, path in files.items() if name in volume.NAMES}
    told = {name: path for name, path in files.items() if name not in adapter} | {volume.CARD: written}
    while True:
        try:
            written.write_text(json.dumps(card, indent=2, sort_keys=True) + "\n")
            return image.write(places.scratch / "image", adapter, cards.annotations(card, config.intent), card=told)
        except OSError as error:
            if error.errno not in volume.FULL or not checkpoints.make_room(_folder(config, places)):
                waits.bear(explain(error))


def _keep(
    config: TuningConfig, places: Places, files: Mapping[str, Path], card: Mapping[str, Any], waits: Patience
) -> str:
    folder = _folder(config, places)
    waits.eviction.keeper = None
    while True:
        try:
            made = volume.find(places.results, config.intent)  # an earlier try may have come far enough
            made = made or volume.keep(files, {**card, "files": sorted(files)}, places.results, config.intent)
        except TuningError as error:
            if volume.is_full(error):
                if checkpoints.make_room(folder):
                    log.warning("%s; a checkpoint gives way to the adapter", error)
                    continue
                waits.eviction.resumes_from = 0
            waits.bear(error)
        else:
            checkpoints.drop(folder)
            return made


def _folder(config: TuningConfig, places: Places) -> Path:
    return checkpoints.place(places.results if config.output.volume else places.scratch, config.intent)


def _copies(config: TuningConfig, places: Places, eviction: Eviction) -> copies.Copies:
    seconds = max(config.checkpoint_seconds, config.checkpoint_push_seconds)
    return copies.Copies(config.output.image, places.push_auth, config.intent, eviction=eviction, seconds=seconds)
