"""One of several processes that would each settle on another way to compute, as GPUs with more and less room do.

    python -m tests.tuning.training.of_two_minds FOLDER RANK SIZE PORT

Prints what it settled on.
"""

import io
import sys
from pathlib import Path

from torch.distributed import TCPStore

from tests.tuning.training import test_loop as alone
from tuning.eviction import Eviction
from tuning.report import Report
from tuning.training import distributed, train
from tuning.training.batches import Batches
from tuning.training.world import World
from tuning.training_config import TrainingConfig


def main(folder, world, port):
    distributed._joined(TCPStore("127.0.0.1", port, world.size, is_master=world.rank == 0), world)
    own = {"activation_checkpointing": bool(world.rank), "max_length": 128 >> world.rank}
    trained = train.train(
        alone.tiny_model(),
        alone.ROWS,
        [],
        settings=TrainingConfig(arguments={"max_steps": 1, "per_device_train_batch_size": 8, **own}),
        batches=Batches(0, 1),
        report=Report(io.StringIO()),
        eviction=Eviction(),
        scratch=folder / str(world.rank),
        world=world,
    )
    print(trained.resolved.model_dump_json())


if __name__ == "__main__":
    main(Path(sys.argv[1]), World(int(sys.argv[2]), int(sys.argv[3])), int(sys.argv[4]))
