"""Where the adapter goes: into a registry or a volume; either way found again by its intent, and never made twice."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tuning.config import TuningConfig
from tuning.errors import NodeTrouble, TuningError
from tuning.eviction import Eviction
from tuning.output import cards, checkpoints, image, push, registry, volume
from tuning.places import Places
from tuning.report import log

VOLUME_SECONDS = 1800.0
"""How long a volume that takes nothing is asked again: it may be made larger meanwhile."""


def find(config: TuningConfig, places: Places) -> str:
    """The adapter that this intent made, by digest, else empty; raises unless another could be put there."""
    if config.output.image:
        asked = registry.Registry(config.output.image, places.push_auth)
        found = asked.ask(config.intent)
        return found and f"{asked.reference.name}@{found}"
    if not places.results.is_dir():
        raise NodeTrouble(f"{volume.FIELD}: {config.output.volume} is not mounted at {places.results}")
    folder = checkpoints.place(places.results, config.intent)
    found = volume.find(places.results, config.intent)
    if not found:
        if config.checkpoint_seconds:
            checkpoints.probe(folder)
        volume.probe(places.results, config.intent)
        return ""
    checkpoints.drop(folder)  # its run may have been killed before it did
    return f"{config.output.volume}@{found}"


def kept(config: TuningConfig, places: Places, identity: str) -> checkpoints.Checkpoints | None:
    """Where training is kept from being lost while it runs; None where the user wants none."""
    if not config.checkpoint_seconds:
        return None
    folder = checkpoints.place(places.results, config.intent)
    if others := sorted(path.name for path in folder.parent.glob(".checkpoints-*") if path != folder):
        log.info("%s: %s are of other runs; delete them once these need them no more", volume.FIELD, ", ".join(others))
    return checkpoints.Checkpoints(folder, identity, seconds=config.checkpoint_seconds)


def put(
    config: TuningConfig, places: Places, files: Mapping[str, Path], card: Mapping[str, Any], eviction: Eviction
) -> str:
    """Bring the adapter's files and its card where they are to go; returns its name by digest."""
    if config.output.volume:
        return f"{config.output.volume}@{_keep(config, places, files, card, eviction)}"
    written = places.scratch / "adapter" / volume.CARD
    written.write_text(json.dumps(card, indent=2, sort_keys=True) + "\n")
    packed = image.write(places.scratch / "image", {**files, volume.CARD: written}, cards.annotations(config, card))
    return push.push(
        packed, config.output.image, config.intent, places.push_auth, scratch=places.scratch, eviction=eviction
    )


def _keep(
    config: TuningConfig, places: Places, files: Mapping[str, Path], card: Mapping[str, Any], eviction: Eviction
) -> str:
    """The training is paid for: what the volume refuses now it may take later."""
    end, pause = time.monotonic() + VOLUME_SECONDS, 5.0
    folder = checkpoints.place(places.results, config.intent)
    while True:
        try:
            made = volume.find(places.results, config.intent)  # an earlier try may have come far enough
            made = made or volume.keep(files, {**card, "files": sorted(files)}, places.results, config.intent)
        except TuningError as error:
            if volume.is_full(error):
                if checkpoints.make_room(folder):
                    log.warning("%s; a checkpoint gives way to the adapter", error)
                    continue
                eviction.resumes_from = 0
            if time.monotonic() + pause > end:
                raise
            log.warning("%s; trying again in %.0f s", error, pause)
        else:
            checkpoints.drop(folder)
            return made
        eviction.sleep(pause)
        pause = min(2 * pause, 30)
