"""Training by itself: where an eviction stops it, what does not fit, and what is not a language model's doing."""

import io
from array import array

import pytest

from tuning.data.masks import IGNORED, Encoded
from tuning.errors import Evicted, OutOfMemory
from tuning.eviction import Eviction
from tuning.report import Report
from tuning.training import train
from tuning.training.batches import Batches
from tuning.training_config import TrainingConfig

ROWS = [Encoded(array("i", [1, 2, 3, 4]), array("i", [IGNORED, 2, 3, 4]))] * 8


class Evicting(Batches):
    """Lets the pod be asked to go when the micro-batch of this number is made; the first is a try."""

    def __init__(self, at):
        super().__init__(0, 1)
        self.at, self.made, self.eviction = at, 0, Eviction()

    def tensors(self, *what, **more):
        self.made += 1
        self.eviction.requested = self.made > self.at
        return super().tensors(*what, **more)


def trained(batches, folder, *, max_steps=2, held_out=(), **more):
    from tests.tuning import tiny

    arguments = {"max_steps": max_steps, "per_device_train_batch_size": 1, "gradient_accumulation_steps": 1, **more}
    return train.train(
        tiny.model(300, hidden=16, layers=1),
        ROWS,
        list(held_out),
        settings=TrainingConfig(arguments=arguments | {"per_device_eval_batch_size": 1, "max_length": 16}),
        batches=batches,
        report=Report(io.StringIO()),
        eviction=batches.eviction,
        scratch=folder,
    )


@pytest.mark.torch
@pytest.mark.parametrize(("batch", "steps"), [(1, 2), (2, 1)])
def test_rows_that_are_put_together_count_as_one(tmp_path, caplog, batch, steps):
    caplog.set_level("INFO")
    batches = Evicting(1000)
    one = {"max_steps": -1, "num_train_epochs": 1}
    done = trained(batches, tmp_path, packing=True, per_device_train_batch_size=batch, **one)
    assert (len(done.losses), batches.tokens) == (steps, 32)
    assert f"8 rows are put together into 2 of at most 16 tokens; an epoch has {steps} steps in place of" in caplog.text
    apart = trained(Evicting(1000), tmp_path, per_device_train_batch_size=4 * batch, **one)
    assert done.losses == pytest.approx(apart.losses, rel=1e-4), "the same rows in a step, all of them alike"


@pytest.mark.torch
def test_an_eviction_ends_training_that_is_not_done(tmp_path):
    with pytest.raises(Evicted, match="after step 1 of 50"):
        trained(Evicting(1), tmp_path, max_steps=50)


@pytest.mark.torch
def test_an_eviction_during_the_last_step_loses_nothing(tmp_path):
    done = trained(Evicting(1), tmp_path, max_steps=1)
    assert len(done.losses) == 1


@pytest.mark.torch
def test_an_eviction_ends_the_evaluation_and_not_the_run(tmp_path):
    calm = trained(Evicting(1000), tmp_path, held_out=ROWS)
    assert calm.eval_loss > 0
    batches = Evicting(6)
    done = trained(batches, tmp_path, held_out=ROWS * 10)
    assert (len(done.losses), done.eval_loss) == (2, None)
    assert batches.made < 12  # of 20 to evaluate


class TooLarge(Batches):
    """Has no memory from the micro-batch of this number on, as torch says it."""

    def __init__(self, at, error):
        super().__init__(0, 1)
        self.at, self.made, self.error, self.eviction = at, 0, error, Eviction()

    def tensors(self, *what, **more):
        self.made += 1
        if self.made > self.at:
            raise self.error
        return super().tensors(*what, **more)


@pytest.mark.torch
def test_an_evaluation_that_does_not_fit_does_not_cost_the_adapter(tmp_path, caplog):
    import torch

    batches = TooLarge(3, torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"))
    done = trained(batches, tmp_path, held_out=ROWS)
    assert (len(done.losses), done.eval_loss) == (2, None)
    assert "lower TrainingArguments.per_device_eval_batch_size" in caplog.text
    with pytest.raises(OutOfMemory, match="even with one row of 4 tokens at once and activations computed twice"):
        trained(TooLarge(2, batches.error), tmp_path, held_out=ROWS)
    with pytest.raises(RuntimeError, match="another"):
        trained(TooLarge(3, RuntimeError("another")), tmp_path, held_out=ROWS)
