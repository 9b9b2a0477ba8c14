"""`estimate`: what one GPU has to hold for a run, and which GPU sizes do; the arithmetic is `presets.memory`'s."""

import argparse
from collections.abc import Iterator
from pathlib import Path

import presets
from artifacts.weights import check
from artifacts.weights.errors import WeightsError
from presets import memory
from tuning import flags
from tuning.errors import ConfigInvalid, ModelFiles, ModelUnusable

SHOWN = 8


def lines(asked: argparse.Namespace) -> Iterator[str]:
    """What to print."""
    if not asked.model:
        asked.error("give --model")
    model, training = preset(asked.model), flags.training(asked.training, asked.method)
    arguments = training.arguments
    rows = asked.rows or arguments.per_device_train_batch_size
    length = asked.max_length or arguments.max_length
    rank = asked.rank or training.rank
    recompute = arguments.activation_checkpointing is not False

    def needed(rows: int) -> memory.Need:
        return memory.tuning(
            model,
            asked.method,
            tokens=rows * length,
            rank=rank,
            recompute=recompute,
            head="whole" if arguments.label_smoothing_factor else None,
            stored=training.stored,
        )

    need = needed(rows)
    kept = "" if recompute else ", activations kept"
    yield f"{model.name}, {asked.method}, rank {rank}, {rows} x {length:,} tokens{kept}"
    for name, gib in need.parts.items():
        yield f"  {name:<20}{gib:8.2f} GiB"
    yield f"  {'together':<20}{need.gib:8.2f} GiB; a GPU must have {need.gib * memory.MARGIN:.2f} GiB for it"
    if rows > 1:
        yield f"with one row at once, which learns the same, {needed(1).gib * memory.MARGIN:.2f} GiB"
    yield from _sizes(need, asked.cloud)


def _sizes(need: memory.Need, cloud: str) -> Iterator[str]:
    found = memory.cheapest(need.gib, cloud=cloud)
    if not found:
        yield f"no GPU size of {cloud} holds it: take --method qlora, fewer --rows or a smaller --max-length"
        return
    yield f"{len(found)} GPU sizes of {cloud} hold it, the cheapest first:"
    for size in found[:SHOWN]:
        usd = size.usd()
        price = f"${usd:.2f} an hour" if usd is not None else "price not known"
        yield f"  {size.name:<34}{size.gpu}, {size.gib_per_gpu:.0f} GiB, {price}"


def preset(name: str) -> presets.Preset:
    """The model's numbers: known here, or read from its folder or the hub."""
    model, folder = flags.named_model(name)
    try:
        if folder:
            return _of_folder(folder)
        if not presets.is_hub_id(name):
            return presets.preset(name)
        found = check.check(model.model_copy(update={"known": False}), Path()).preset
    except WeightsError as error:
        raise ModelFiles(error) from error
    assert found is not None
    return found


def _of_folder(folder: Path) -> presets.Preset:
    try:
        return presets.from_folder(folder.resolve().name, None, folder)
    except (OSError, ValueError) as error:
        if isinstance(error, presets.UnservableError):
            raise ModelUnusable(f"--model: {error}") from error
        raise ConfigInvalid(f"--model: {folder}/config.json cannot be read: {error}; give a model's folder") from error
