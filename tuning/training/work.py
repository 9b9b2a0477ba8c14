"""What every process of a run does alike: load the model, put the adapter in, train it. Knows no data, no registry."""

import time
from pathlib import Path
from typing import Any, NamedTuple

from tuning.config import TuningConfig
from tuning.data.masks import Encoded
from tuning.errors import NodeTrouble
from tuning.eviction import Eviction
from tuning.output.checkpoints import Checkpoints
from tuning.report import Report, log
from tuning.training import batches, ladder, model, train
from tuning.training.world import World


class Work(NamedTuple):
    """All that it takes."""

    config: TuningConfig
    folder: Path
    """The base model's files."""
    pad: int
    """The token that fills up lines."""
    training: list[Encoded]
    held_out: list[Encoded]
    start: train.Start | None
    """Where an earlier attempt was cut off."""
    computes: str
    """The number format, of process 0's GPU."""

    def load(self) -> Any:
        """The model with a fresh adapter, the same in every process."""
        import transformers  # noqa: PLC0415

        began, at = time.monotonic(), device()
        if (has := model.precision(self.computes, at)) != self.computes:
            raise NodeTrouble(
                f"GPUs of this node differ: the first computes in {self.computes}, another in {has}; take nodes whose"
                " GPUs are alike"
            )
        base = model.load(self.folder, self.config, at, self.computes)
        transformers.set_seed(self.config.training.arguments.seed)  # the adapter starts at random
        adapted = model.attach(base, self.config.training.lora)
        log.info("loaded %s on %s in %s, %.1f s", self.config.model.id, at, base.dtype, time.monotonic() - began)
        return adapted

    def learn(
        self,
        adapted: Any,
        world: World,
        *,
        report: Report,
        eviction: Eviction,
        scratch: Path,
        checkpoints: Checkpoints | None = None,
    ) -> train.Trained:
        """Train the adapter in place; `report`, `eviction` and `checkpoints` are process 0's, the others' are idle."""
        world.same(adapted.parameters())
        return train.train(
            adapted,
            self.training,
            self.held_out,
            settings=self.config.training,
            batches=batches.Batches(self.pad, self.config.training.collator.pad_to_multiple_of),
            report=report,
            eviction=eviction,
            scratch=scratch,
            checkpoints=checkpoints,
            start=self.start,
            needed=lambda tokens, chunked: ladder.needed_gib(
                self.config, self.folder, tokens, chunked=chunked, gpus=world.size
            ),
            world=world,
        )


def computes(config: TuningConfig, start: train.Start | None) -> str:
    """The number format: as an earlier attempt computed, else as asked, where this process's GPU has it."""
    asked = config.training.quantization.bnb_4bit_compute_dtype or config.training.model.torch_dtype
    return model.precision(start.resolved.precision if start else asked, device())


def device() -> str:
    """Where this process trains: each sees one GPU alone."""
    import torch  # noqa: PLC0415

    return "cuda:0" if torch.cuda.is_available() else "cpu"  # with its index, which accelerate compares
