"""One of several processes: trains the rows of test_loop on a GPU that holds less than the others'.

    python -m tests.tuning.training.one_of_several FOLDER RANK SIZE PORT HOLDS

Prints its losses and what it settled on, and saves what it learned.
"""

import io
import json
import sys
from pathlib import Path

import torch
from torch.distributed import TCPStore

from tests.tuning.training import test_loop as alone
from tuning.eviction import Eviction
from tuning.report import Report
from tuning.training import distributed, follower, loop, train
from tuning.training.batches import Batches
from tuning.training.world import World
from tuning.training_config import TrainingConfig


def main(folder, world, port, holds):
    model = alone.tiny_model()
    if holds:
        alone.hungry(model, holds, after=1)
    distributed._joined(TCPStore("127.0.0.1", port, world.size, is_master=world.rank == 0), world)
    settings = TrainingConfig(
        arguments={
            "num_train_epochs": 1,
            "per_device_train_batch_size": 8,
            "per_device_eval_batch_size": 1,
            "max_length": 128,
        },
        dataset={"shuffle_dataset": False},
    )
    batches, report, eviction = Batches(0, 1), Report(io.StringIO()), Eviction()
    made = loop.Trainer(
        loop.Setup(settings, batches, alone.settled(), eviction, None, report.curve, world),
        model=model,
        args=train.arguments(model, settings, folder / str(world.rank), {}),
        train_dataset=alone.ROWS[:-7],  # so that the last step has a row for one process alone
        eval_dataset=alone.ROWS,
        callbacks=[follower.Follower(batches, report, eviction, None, world)],
    )
    made.train()
    torch.save(alone.learned(made), folder / f"learned-{world.rank}.pt")
    print(json.dumps([alone.losses(made), made.resolved.tokens, made.evaluate().get("eval_loss")]))


if __name__ == "__main__":
    folder, rank, size, port, holds = sys.argv[1:]
    main(Path(folder), World(int(rank), int(size)), int(port), int(holds))
