"""SIGTERM while the rows held out are looked at, or are about to be: neither steps nor what those rows say is lost."""

import io
import signal

import pytest

from tests.tuning.training import test_loop as steps
from tuning.errors import Evicted
from tuning.eviction import Eviction
from tuning.output import checkpoints
from tuning.report import Report
from tuning.training.batches import Batches
from tuning.training_config import TrainingConfig

pytestmark = pytest.mark.torch
HELD_OUT = [steps.row(60), steps.row(90), steps.row(100)]  # more than are looked at at once
LOOKS = {
    "num_train_epochs": 3,
    "per_device_train_batch_size": 8,
    "per_device_eval_batch_size": 1,
    "max_length": 128,
    "learning_rate": 3e-2,
    "eval_strategy": "steps",
    "eval_steps": 1,
    "load_best_model_at_end": True,
}


@pytest.fixture(autouse=True)
def handler():
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


class Attempts:
    """Of one run, on one disk."""

    def __init__(self, folder, **asked):
        self.folder, self.settings = folder, TrainingConfig(arguments=LOOKS | asked)
        folder.mkdir()

    def train(self, moment="", look=0):
        """An attempt that is asked to go `in` or `before` so many looks at the rows held out."""
        from tuning.training import train

        model, eviction = steps.tiny_model(lora_dropout=0.2), Eviction()
        self.report = Report(io.StringIO())
        self.kept = checkpoints.Checkpoints(self.folder / "kept", "mine", seconds=1000)
        start = train.start(self.kept)
        asked_to_go(model, moment, look, probes=start is None)
        eviction.keeper = self.kept
        eviction.listen()
        with eviction.deferred():
            done = train.train(
                model,
                steps.ROWS,
                HELD_OUT,
                settings=self.settings,
                batches=Batches(0, 1),
                report=self.report,
                eviction=eviction,
                scratch=self.folder,
                checkpoints=self.kept,
                start=start,
            )
        return done, model.state_dict()

    def curve(self):
        return [(row.step, row.loss, row.eval_loss) for row in self.report.curve.rows]


def asked_to_go(model, moment, wanted, *, probes):
    """SIGTERM comes in the midst of so many looks at the rows held out, or in the step before."""
    seen = {"looks": 0, "trains": not probes}  # whether what comes next without training is such a look

    def watch(module, *_):
        if module.training and moment == "before" and seen["looks"] == wanted - 1:
            signal.raise_signal(signal.SIGTERM)
        if not module.training and seen["trains"]:
            seen["looks"] += 1
            if moment == "in" and seen["looks"] == wanted:
                signal.raise_signal(signal.SIGTERM)
        seen["trains"] = module.training

    model.get_base_model().register_forward_pre_hook(watch)


def same(ones, others):
    import torch

    return all(torch.equal(ones[name], others[name]) for name in others)


@pytest.mark.parametrize("moment", ["in", "before"])
def test_the_step_before_is_kept_and_the_next_attempt_looks(tmp_path, moment):
    calm, cut = Attempts(tmp_path / "calm"), Attempts(tmp_path / "cut")
    wanted, learned = calm.train()
    with pytest.raises(Evicted, match="after step 4 of 9; the next attempt goes on from step 4"):
        cut.train(moment, 4)
    found, same_again = cut.train()
    assert (found.losses, found.eval_loss) == (wanted.losses, wanted.eval_loss)
    assert (found.resumed_from, cut.curve()) == (4, calm.curve())
    assert same(same_again, learned)


def test_a_look_that_is_left_twice_is_made_at_last(tmp_path):
    calm, cut = Attempts(tmp_path / "calm"), Attempts(tmp_path / "cut")
    _, learned = calm.train()
    for look in (4, 1):
        with pytest.raises(Evicted, match="the next attempt goes on from step 4"):
            cut.train("in", look)
    _, same_again = cut.train()
    assert cut.curve() == calm.curve()
    assert same(same_again, learned)


def test_a_look_that_ends_training_ends_it_in_the_next_attempt(tmp_path):
    calm, cut = (Attempts(tmp_path / name, early_stopping_patience=1) for name in ("calm", "cut"))
    wanted, learned = calm.train()
    last = len(wanted.losses)
    assert wanted.ended_early
    with pytest.raises(Evicted, match=f"goes on from step {last}"):
        cut.train("in", last)
    found, same_again = cut.train()
    assert (found.ended_early, found.losses) == (True, wanted.losses)
    assert same(same_again, learned)


@pytest.mark.parametrize("asked", [{}, {"load_best_model_at_end": False}, {"optim": "sgd"}], ids=str)
def test_a_checkpoint_weighs_what_preflight_counts_for_it(tmp_path, asked):
    cut = Attempts(tmp_path / "cut", max_steps=3, **asked)
    with pytest.raises(Evicted):
        cut.train("in", 2)
    weights = sum(each.numel() for each in steps.tiny_model().parameters() if each.requires_grad)
    there = sum(path.stat().st_size for path in cut.kept.newest().path.iterdir())
    counted = weights * cut.settings.checkpoint_bytes
    assert counted <= there < counted + 100_000, "states of random numbers, and words"
