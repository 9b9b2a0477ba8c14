"""`validate`: what can be known without a GPU and without torch: may the adapter go there, is it there, is there data.

Runs in the operator's image. Everything is asked at once, and the whole is bounded: a user waits for the answer. What
the registry says is heard first, so that a wrong push secret is told whatever else takes its time.
"""

import contextlib
import shutil

import presets
from artifacts import looks
from artifacts.weights import check as weights
from presets import memory
from tuning import rehearsal
from tuning.config import Result, TuningConfig
from tuning.data import inputs
from tuning.errors import DataUnreachable, ModelFiles, NodeTrouble, RegistryUnavailable, TuningError, VolumeRefused
from tuning.output import checkpoints, destination, volume
from tuning.places import Places
from tuning.report import log
from tuning.training import hub


def check(config: TuningConfig, places: Places, *, seconds: float = looks.SECONDS) -> Result:
    """The adapter by digest if it was made already, else an empty one if nothing speaks against making it."""
    for warning in config.training.warnings:
        log.warning("training_config.yaml: %s", warning)
    asked = looks.Looks(seconds)
    data = inputs.looks(config, places, seconds=seconds)
    there = asked.begin(_find, config, places)
    model = asked.begin(hub.look, config, places) if config.model.ask else None
    tokenizer = asked.begin(rehearsal.files, config, places)
    begun = {name: asked.begin(look) for name, look in data.items()}
    made = asked.found(there, _late(config, asked.late))
    found = asked.found(model, ModelFiles(weights.silent(config.model, asked.late))) if model else None
    if made:
        return Result(adapter=made, model=found)  # the data is not needed any more
    if places.model:
        hub.download(config, places)  # nothing comes: it is seen whether there is a model
    seen = []
    for name, look in begun.items():
        unread = DataUnreachable(f"{name}: {asked.late}; use a faster server")
        seen.append(asked.found(look, unread))
        log.info("%s: %s", name, seen[-1].words)
    see_room(config, places, found.preset if found else None)
    rehearsal.rehearse(config, seen, tokenizer, asked)
    return Result(model=found, data=inputs.commits(config, seen))


def see_room(config: TuningConfig, places: Places, model: presets.Preset | None) -> None:
    """Raise VolumeRefused unless the output's volume has room for the adapter and what is kept while it is trained."""
    if not (config.output.volume and places.results.is_dir()):
        return
    with contextlib.suppress(presets.UnknownNameError):
        model = presets.preset(config.preset)
    if model is None or checkpoints.place(places.results, config.intent).exists():  # they are counted as used by now
        return
    rank = config.training.rank
    needed = memory.trained(model, rank) * config.training.written_bytes(kept=config.checkpoint_seconds > 0)
    free = shutil.disk_usage(places.results).free
    if needed > free:
        kept, less = "", ""
        if config.checkpoint_seconds:
            kept, less = " and its checkpoints", ", or say tuning.checkpoint.destination: None"
        raise VolumeRefused(
            f"{volume.FIELD}: {config.output.volume} has {free / 1e9:.2f} GB free, of {needed / 1e9:.2f} GB for an"
            f" adapter of rank {rank}{kept}; make the claim larger or lower LoraConfig.r{less}"
        )


def _late(config: TuningConfig, late: str) -> TuningError:
    """What nobody's answer means, by whom was asked."""
    if config.output.volume:
        return NodeTrouble(f"{volume.FIELD}: {config.output.volume} {late}; see whether its storage is well")
    return RegistryUnavailable(f"tuning.output.image: {config.output.image} {late}")


def _find(config: TuningConfig, places: Places) -> str:
    if config.output.volume and not places.results.is_dir():
        log.info(
            "tuning.output.volumeSource (%s): is not mounted here: it is looked into on the node", config.output.volume
        )
        return ""
    return destination.find(config, places)
