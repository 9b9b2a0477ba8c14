"""What a run settled on to fit its GPU: estimated before it begins, less each time that memory does not suffice.

None of it changes what is learned: the rows of an optimizer step and their weights stay. It is kept in checkpoints, so
that the next attempt computes in the same way, to the bit.
"""

from pathlib import Path
from typing import Self

import pydantic

import presets
from presets import memory
from tuning.config import TuningConfig
from tuning.errors import OutOfMemory
from tuning.report import log

NAME = "resolved.json"
_USABLE = 0.95
"""Of a GPU's memory; driver and error correction keep the rest."""


class Resolved(pydantic.BaseModel, frozen=True, extra="forbid"):
    """How a run computes."""

    precision: str
    """torch's name of the number format."""
    tokens: int
    """Computed at once, at most; a longer row is computed alone."""
    packing: bool
    """Whether rows stand one behind the other; else they are grouped by length and filled up."""
    chunked_head: bool
    """Whether the loss is made without all logits."""
    checkpointing: bool
    """Whether activations are computed again for the backward pass."""

    @classmethod
    def of(cls, folder: Path) -> Self:
        """What a checkpoint's run had settled on; OSError or ValueError where that cannot be read."""
        return cls.model_validate_json((folder / NAME).read_bytes())

    def write(self, folder: Path) -> None:
        """Put it beside the weights."""
        (folder / NAME).write_text(self.model_dump_json(indent=2))

    def told(self) -> str:
        """For people."""
        rows = "packed" if self.packing else "grouped by length and padded"
        return (
            f"computing in {self.precision}, at most {self.tokens} tokens at once, rows {rows}, "
            f"loss {'without' if self.chunked_head else 'from'} all logits, "
            f"activations {'computed twice' if self.checkpointing else 'kept'}"
        )


def needed_gib(config: TuningConfig, folder: Path, tokens: int, *, chunked: bool, gpus: int = 1) -> float | None:
    """The estimate for so many tokens at once with all activations kept; None for a model that is not understood."""
    try:
        preset = presets.from_folder(config.model.id, config.model.revision, folder)
    except (OSError, ValueError):
        return None
    return memory.tuning(
        preset,
        config.method,
        tokens=tokens,
        rank=config.training.rank,
        recompute=False,
        head="chunked" if chunked else "whole",
        stored=config.training.stored,
        gpus=gpus,
    ).gib


def must_recompute(asked: bool | None, needed_gib: float | None, gpu_gib: float | None) -> bool:  # noqa: FBT001
    """Whether activations are computed twice: as asked; else not on a CPU, nor where all of them fit the GPU.

    `needed_gib` is the estimate with all of them kept, None for a model that nothing is known of.
    """
    if asked is not None:
        return asked
    if gpu_gib is None:
        return False
    return needed_gib is None or needed_gib * memory.MARGIN > gpu_gib * _USABLE


def lower(resolved: Resolved, longest: int, largest: int, why: str) -> Resolved:
    """What to try after `largest` tokens at once were too many; OutOfMemory when there is nothing left to try.

    First half as many, down to the longest row, which cannot be divided; then activations are computed twice.
    """
    before = min(resolved.tokens, largest)
    if before > longest:
        less = resolved.model_copy(update={"tokens": memory.fewer(before, longest)})
    elif not resolved.checkpointing:
        less = resolved.model_copy(update={"checkpointing": True})
    else:
        raise OutOfMemory(
            f"training does not fit the GPU's memory even with one row of {longest} tokens at once and activations"
            f" computed twice ({why}); take a larger resource.instanceType, lower TrainingArguments.max_length, or use"
            " method qlora"
        )
    log.warning("%d tokens at once do not fit the GPU's memory (%s); %s", before, why, less.told())
    return less
