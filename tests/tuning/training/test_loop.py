"""Steps are the same optimisation however they are divided: packed, padded, smaller when memory does not suffice."""

import io
import itertools
import random
from array import array

import pytest

from tuning.data.masks import IGNORED, Encoded
from tuning.errors import OutOfMemory
from tuning.eviction import Eviction
from tuning.report import Report
from tuning.training.batches import Batches
from tuning.training_config import LoraConfig, TrainingConfig

pytestmark = pytest.mark.torch
DRAWN = random.Random(5)
LENGTHS = [3, 90, 12, 41, 7, 64, 18, 30] * 3


def row(length):
    ids = [DRAWN.randrange(5, 300) for _ in range(length)]
    return Encoded(array("i", ids), array("i", [IGNORED] * (length // 3) + ids[length // 3 :]))


ROWS = [row(length) for length in LENGTHS]


def tiny_model(**lora):
    from tests.tuning import tiny
    from tuning.training.model import attach

    made = tiny.model(300)
    made.config.use_cache = False
    return attach(made, LoraConfig(**lora))


def hungry(model, holds, *, more=0, after=0):
    """A model on a GPU that holds so many tokens at once, and `more` with activations computed twice.

    It holds any number the first `after` times.
    """
    import torch

    seen = []

    def weigh(module, _inputs, named):
        tokens = named["input_ids"].numel()
        seen.append(tokens)
        if len(seen) > after and tokens > (holds + more if module.is_activation_checkpointing else holds):
            raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {tokens} GiB\nand more")

    model.get_base_model().register_forward_pre_hook(weigh, with_kwargs=True)
    return seen


def settled(**how):
    from tuning.training.ladder import Resolved

    usual = {"precision": "float32", "tokens": 1024, "packing": True, "chunked_head": True, "checkpointing": False}
    return Resolved(**(usual | how))


def trainer(model, folder, *, held_out=(), arguments=None, shuffled=False, **how):
    """After its training: two optimizer steps of eight rows in file order, and one of the rest."""
    from tuning.training import follower, loop, train

    asked = {"num_train_epochs": 1, "per_device_train_batch_size": 8, "max_length": 128, **(arguments or {})}
    settings = TrainingConfig(arguments=asked, dataset={"shuffle_dataset": shuffled})
    batches, report, eviction = Batches(0, 1), Report(io.StringIO()), Eviction()
    more = train.evaluations(settings, ROWS, list(held_out))
    made = loop.Trainer(
        loop.Setup(settings, batches, settled(**how), eviction, None, report.curve),
        model=model,
        args=train.arguments(model, settings, folder, more),
        train_dataset=ROWS,
        eval_dataset=list(held_out) or None,
        callbacks=[follower.Follower(batches, report, eviction, None)],
    )
    made.train()
    return made


def losses(made):
    return [entry["loss"] for entry in made.state.log_history if "loss" in entry]


def learned(made):
    import torch

    return torch.cat([each.detach().flatten() for each in made.model.parameters() if each.requires_grad])


@pytest.fixture(scope="module")
def usual(tmp_path_factory):
    """What transformers' own loss and padding make of each step at once."""
    return trainer(tiny_model(), tmp_path_factory.mktemp("usual"), packing=False, chunked_head=False)


@pytest.mark.parametrize(
    "how",
    [
        {"packing": True},
        {"packing": True, "tokens": 100},
        {"packing": False},
        {"packing": False, "tokens": 100},
        {"chunked_head": False},
        {"chunked_head": False, "tokens": 100},
        {"checkpointing": True, "tokens": 200},
    ],
)
def test_however_a_step_is_divided_it_is_the_same(how, usual, tmp_path):
    import torch

    made = trainer(tiny_model(), tmp_path, **how)
    assert losses(made) == pytest.approx(losses(usual), rel=1e-5)
    assert torch.equal(learned(made) != 0, learned(usual) != 0)
    assert (learned(made) - learned(usual)).abs().max() < 1e-6
    assert learned(made).norm() > 0


def test_an_accumulation_is_the_same_step_too(usual, tmp_path):
    asked = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}
    made = trainer(tiny_model(), tmp_path, arguments=asked)
    assert (learned(made) - learned(usual)).abs().max() < 1e-6


@pytest.mark.parametrize("packing", [True, False])
def test_half_as_much_is_tried_when_memory_does_not_suffice(packing, usual, tmp_path, caplog):
    model = tiny_model()
    seen = hungry(model, 150)
    made = trainer(model, tmp_path, packing=packing)
    assert max(seen) > 150
    assert 90 <= made.resolved.tokens <= 150
    assert not made.resolved.checkpointing
    assert (learned(made) - learned(usual)).abs().max() < 1e-6
    assert "do not fit the GPU's memory (CUDA out of memory. Tried to allocate" in caplog.text


def test_before_the_first_step_the_largest_is_tried(tmp_path):
    model = tiny_model()
    seen = hungry(model, 10**6)
    trainer(model, tmp_path, shuffled=True)
    assert len(seen) == 4
    assert seen[0] > max(seen[1:])


def test_activations_are_computed_twice_when_one_row_alone_is_too_much(usual, tmp_path):
    model = tiny_model()
    hungry(model, 60, more=40)
    made = trainer(model, tmp_path)
    assert made.resolved.checkpointing
    assert 90 <= made.resolved.tokens < 100
    assert (learned(made) - learned(usual)).abs().max() < 1e-6


def test_what_does_not_fit_in_any_way_ends_with_the_numbers(tmp_path):
    model = tiny_model()
    hungry(model, 60, more=20)
    with pytest.raises(OutOfMemory, match=r"one row of 90 tokens at once .*allocate 90 GiB\).*resource.instanceType"):
        trainer(model, tmp_path)


def test_dropout_draws_the_same_after_a_failed_attempt(tmp_path):
    """A run that was cut off meets the same failure again, and has to draw the same numbers after it."""
    import torch

    found = []
    for fails_at in (2, 3):  # micro-batches of the first step
        model = tiny_model(lora_dropout=0.2)
        hungry(model, 95, after=fails_at - 1)
        made = trainer(model, tmp_path, tokens=140)
        found.append((made.resolved.tokens, learned(made)))
    assert found[0][0] == found[1][0] < 140
    assert torch.equal(found[0][1], found[1][1])


@pytest.mark.parametrize(("packing", "chunked_head"), [*itertools.product([True, False], repeat=2)])
def test_rows_held_out_count_by_their_tokens(packing, chunked_head, tmp_path):
    import torch

    made = trainer(tiny_model(), tmp_path, packing=packing, chunked_head=chunked_head)
    made.model.eval()
    total, count = 0.0, 0
    for each in ROWS[:5]:
        ids, labels = torch.tensor([each.ids.tolist()]), torch.tensor([each.labels.tolist()])
        supervised = int((labels[:, 1:] != IGNORED).sum())
        with torch.no_grad():
            total += made.model(input_ids=ids, labels=labels).loss.item() * supervised
        count += supervised
    made.eval_dataset = ROWS[:5]
    assert made.evaluate()["eval_loss"] == pytest.approx(total / count, rel=1e-5)


def evaluated(folder, held_out, **asked):
    """Training that makes the rows held out ever worse after a while: they answer otherwise."""
    arguments = {"eval_strategy": "steps", "eval_steps": 1, "learning_rate": 3e-2, "num_train_epochs": 6}
    return trainer(tiny_model(), folder, held_out=held_out, arguments=arguments | asked)


def looked(made):
    return [entry["eval_loss"] for entry in made.state.log_history if "eval_loss" in entry]


def test_training_ends_when_the_rows_held_out_gain_no_more(tmp_path):
    from tuning.training import stops

    made = evaluated(tmp_path, [row(60)], early_stopping_patience=2)
    found = looked(made)
    assert made.ended_early
    assert len(found) == made.state.global_step < 18
    assert not stops.gains_no_more(found[:-1], 2)
    assert not evaluated(tmp_path, [row(60)]).ended_early


def test_the_best_adapter_is_put_back(tmp_path):
    from tuning.training import train

    held_out = [row(60)]
    made = evaluated(tmp_path, held_out, load_best_model_at_end=True)
    found = looked(made)
    assert min(found) < found[-1]
    assert train.settled_on(made) == min(found)
    made.best = None
    assert made.evaluate()["eval_loss"] == pytest.approx(min(found), rel=1e-5)


def test_an_evaluation_changes_nothing_of_what_is_learned(tmp_path):
    import torch

    calm = trainer(tiny_model(lora_dropout=0.2), tmp_path)
    looking = trainer(
        tiny_model(lora_dropout=0.2),
        tmp_path,
        held_out=ROWS[:3],
        arguments={"eval_strategy": "steps", "eval_steps": 1},
    )
    assert [entry["step"] for entry in looking.state.log_history if "eval_loss" in entry] == [1, 2, 3]
    assert torch.equal(learned(calm), learned(looking))
