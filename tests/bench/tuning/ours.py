"""Tuning as we do it, on rows that are given.

    python -m tests.bench.tuning.ours train|head WORK.json

`train` is our loop with the levers that the work names. Prints one JSON object.
"""

import io
import json
import logging
import resource
import sys
from array import array
from pathlib import Path

import torch
import transformers

from tests.bench.tuning import baseline
from tuning.data.masks import IGNORED, Encoded
from tuning.eviction import Eviction
from tuning.report import Report
from tuning.training import follower, head, ladder, loop, train
from tuning.training.batches import Batches
from tuning.training_config import TrainingConfig


def main():
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    logging.disable(logging.INFO)
    work = json.loads(Path(sys.argv[2]).read_text())
    print(json.dumps({"train": trained, "head": peak}[sys.argv[1]](work)))


def trained(work):
    """CPU seconds of each step but the first."""
    rows = [encoded(row, prompt) for row, prompt in zip(work["rows"], work["prompts"], strict=True)]
    asked = {
        "num_train_epochs": 1,
        "per_device_train_batch_size": work["batch"],
        "gradient_accumulation_steps": 1,
        "max_length": 2048,
    }
    settings = TrainingConfig(arguments=asked, dataset={"shuffle_dataset": False})
    clock, batches, report, eviction = baseline.Clock(), Batches(0, None), Report(io.StringIO()), Eviction()
    model = baseline.adapted(work)
    resolved = ladder.Resolved(
        precision="float32",
        tokens=work["batch"] * 2048,
        packing=True,
        chunked_head=work["chunked_head"],
        checkpointing=False,
    )
    trainer = loop.Trainer(
        loop.Setup(settings, batches, resolved, eviction, None, report.curve),
        model=model,
        args=train.arguments(model, settings, Path(work["scratch"]), {}),
        train_dataset=rows,
        callbacks=[follower.Follower(batches, report, eviction, None), clock],
    )
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train()
    return {"seconds": clock.seconds()}


def encoded(ids, prompt):
    return Encoded(array("i", ids), array("i", [IGNORED] * prompt + ids[prompt:]))


def peak(work):
    """How much memory the loss and its gradient take at the most, in MiB."""
    hidden, weight, labels = baseline.inputs(work)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wanted = labels[:, 1:] != IGNORED
    learned = head.summed(hidden[:, :-1][wanted], weight, None, labels[:, 1:][wanted])
    (learned / wanted.sum()).backward()
    return {"mib": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024}


if __name__ == "__main__":
    main()
