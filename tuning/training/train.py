"""Trains the adapter on rows that are token ids, from a checkpoint if there is one.

Knows neither data files nor where anything goes. How it computes is settled here before the first step: `loop` does it.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tuning.config import Progress
from tuning.curve import NAME as CURVE
from tuning.data.masks import Encoded
from tuning.errors import NodeTrouble, TuningError, explain
from tuning.eviction import Eviction
from tuning.output.checkpoints import Checkpoint, Checkpoints
from tuning.report import Report, log
from tuning.training import adapter, ladder, packing
from tuning.training.batches import Batches, Item
from tuning.training.batches import tokens as tokens_of
from tuning.training.world import World
from tuning.training_config import TrainingArguments, TrainingConfig

SHARE = (5, 95)
"""Training's part of the whole run, in per cent."""

Needed = Callable[[int, bool], float | None]
"""GiB that a GPU has to hold for so many tokens at once with all activations kept, and without all logits or with."""


class Trained(NamedTuple):
    """How it went."""

    losses: list[float]
    """One per optimiser step: the mean over the tokens that are learned from."""
    eval_loss: float | None
    """Of the adapter as it is now."""
    resolved: ladder.Resolved
    resumed_from: int = 0
    """Steps that earlier attempts did; their losses are among `losses`."""
    ended_early: bool = False
    """Whether the rows held out gained no more."""

    @property
    def loss(self) -> float:
        """Over the last steps, since that of one step is noise."""
        last = self.losses[-20:]
        return sum(last) / len(last)


class Start(NamedTuple):
    """Where an earlier attempt was cut off."""

    checkpoint: Checkpoint
    resolved: ladder.Resolved


def start(checkpoints: Checkpoints) -> Start | None:
    """The newest checkpoint that says how it was computed."""
    while found := checkpoints.newest():
        try:
            return Start(found, ladder.Resolved.of(found.path))
        except (OSError, ValueError) as error:
            log.warning("%s cannot be gone on from (%s); it is removed", found.path.name, error)
            checkpoints.remove(found)
    return None


def train(
    model: Any,
    rows: list[Encoded],
    held_out: list[Encoded],
    *,
    settings: TrainingConfig,
    batches: Batches,
    report: Report,
    eviction: Eviction,
    scratch: Path,
    checkpoints: Checkpoints | None = None,
    start: Start | None = None,
    needed: Needed = lambda _tokens, _chunked: None,
    world: World = World(),  # noqa: B008 -- a value
) -> Trained:
    """Train the model's adapter in place, as if no earlier attempt had been cut off: that got to `start`."""
    import transformers  # noqa: PLC0415

    from tuning.training import follower, loop  # noqa: PLC0415

    items = _items(rows, settings.arguments)
    resolved = _settled(model, items, settings, needed) if start is None else _kept(model, start, report)
    resolved = world.told_of(resolved)  # a GPU with less room, or another rounding, might settle on something else
    log.info("%s", resolved.told())
    follows = follower.Follower(batches, report, eviction, checkpoints, world)
    trainer = loop.Trainer(
        loop.Setup(settings, batches, resolved, eviction, checkpoints, report.curve, world),
        model=model,
        args=arguments(model, settings, scratch, evaluations(settings, items, held_out)),
        train_dataset=items,
        eval_dataset=held_out or None,
        callbacks=[follows],
    )
    trainer.remove_callback(transformers.PrinterCallback)  # stdout is for progress
    _go(trainer, follows, checkpoints, start)
    if trainer.state.global_step < trainer.state.max_steps and not trainer.ended_early:
        eviction.check(f"after step {trainer.state.global_step} of {trainer.state.max_steps}")
    eval_loss = settled_on(trainer) if held_out else None
    return Trained(follows.losses, eval_loss, trainer.resolved, follows.first, trainer.ended_early)


def _items(rows: list[Encoded], asked: TrainingArguments) -> Sequence[Item]:
    """What a step counts as its rows."""
    if not asked.packing:
        return rows
    found = packing.together([len(row.ids) for row in rows], asked.max_length)
    steps = [math.ceil(count / rows_a_step(asked)) for count in (len(found), len(rows))]
    log.info(
        "packing: %d rows are put together into %d of at most %d tokens; an epoch has %d steps in place of %d",
        len(rows), len(found), asked.max_length, *steps,
    )  # fmt: skip
    return [[rows[row] for row in each] for each in found]


def _settled(model: Any, items: Sequence[Item], settings: TrainingConfig, needed: Needed) -> ladder.Resolved:
    """How a run begins to compute."""
    from tuning.training import head, probe  # noqa: PLC0415

    asked = settings.arguments
    why_whole = head.why_not(model, label_smoothing=asked.label_smoothing_factor)
    if why_whole:
        log.info("the loss is made from all logits, which takes memory: %s", why_whole)
    noisy = "neftune_noise_alpha goes by the length of a line" if asked.neftune_noise_alpha else ""
    why_padded = noisy or probe.why_mixed(model)
    if why_padded:
        log.warning("rows are not packed, which is slower: %s", why_padded)
    tokens = min(asked.per_device_train_batch_size * asked.max_length, rows_a_step(asked) * max(map(tokens_of, items)))
    gib = needed(tokens, not why_whole)
    return ladder.Resolved(
        precision=_precision(model),
        tokens=tokens,
        packing=not why_padded,
        chunked_head=not why_whole,
        checkpointing=ladder.must_recompute(asked.activation_checkpointing, gib, _gpu_gib(model)),
    )


def _kept(model: Any, start: Start, report: Report) -> ladder.Resolved:
    """How the earlier attempt computed; its number format, if this device has it."""
    before, precision = start.resolved, _precision(model)
    if before.precision != precision:
        changed = (
            f"computing in {precision} from step {start.checkpoint.step} on: in {before.precision}, as before, this GPU"
            " cannot"
        )
        log.warning("%s", changed)
        report.say(Progress(phase="train", percent=SHARE[0], message=changed))
    return before.model_copy(update={"precision": precision})


def rows_a_step(asked: TrainingArguments) -> int:
    """Of all GPUs together: they divide them, so that a step is the same whatever it runs on."""
    return asked.per_device_train_batch_size * asked.gradient_accumulation_steps


def _precision(model: Any) -> str:
    return str(model.config.dtype).removeprefix("torch.")


def _gpu_gib(model: Any) -> float | None:
    import torch  # noqa: PLC0415

    if model.device.type == "cpu":
        return None
    return float(torch.cuda.get_device_properties(model.device).total_memory) / 2**30


def _go(trainer: Any, follows: Any, checkpoints: Checkpoints | None, start: Start | None) -> None:
    """All steps that are left to do."""
    if start is None:
        trainer.train()
        return
    found = start.checkpoint
    log.info("training goes on after step %d, from %s", found.step, found.path)
    trainer.setup.eviction.resumes_from = found.step
    trainer.setup.curve.load(found.path / CURVE)
    try:
        trainer.load_best(found.path)
        trainer.train(resume_from_checkpoint=str(found.path))
    except Exception as error:
        if checkpoints is None or follows.trains or type(explain(error)) is not TuningError:
            raise
        checkpoints.remove(found)  # whole, and of no use: another release's, perhaps
        raise NodeTrouble(
            f"{found.path.name} cannot be gone on from ({explain(error)}); it is removed, and the next attempt takes"
            " the one before, or starts over"
        ) from error


def settled_on(trainer: Any) -> float | None:
    """The loss on what is held out, of the adapter that is kept; None when it could not be found out."""
    known = {entry["step"]: entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry}
    loss: float | None = known.get(trainer.state.global_step)
    if loss is None:
        loss = trainer.evaluate().get("eval_loss")
    if trainer.best is None:
        return loss
    best = float(min([*known.values(), *([] if loss is None else [loss])]))
    adapter.put_back(trainer.model, trainer.best)
    log.info("the adapter is the one with the lowest loss on the rows held out, %.4g", best)
    return best


def evaluations(settings: TrainingConfig, items: Sequence[Item], held_out: list[Encoded]) -> dict[str, Any]:
    """When the rows held out are looked at while training runs; after an epoch is after so many steps.

    A checkpoint comes after the evaluation of the same step, which is so for steps alone.
    """
    asked = settings.arguments
    if asked.eval_strategy == "no":
        return {}
    if not held_out:
        log.warning("TrainingArguments.eval_strategy: no rows are held out; lower DatasetConfig.train_test_split")
        return {}
    an_epoch = math.ceil(len(items) / rows_a_step(asked))
    return {"eval_strategy": "steps", "eval_steps": asked.eval_steps if asked.eval_strategy == "steps" else an_epoch}


def arguments(model: Any, settings: TrainingConfig, scratch: Path, more: dict[str, Any]) -> Any:
    """What transformers is told: to it a batch is all rows of a step."""
    import transformers  # noqa: PLC0415

    asked, precision = settings.arguments, _precision(model)

    made = transformers.TrainingArguments(
        output_dir=str(scratch / "trainer"),
        num_train_epochs=asked.num_train_epochs,
        max_steps=asked.max_steps or -1,
        per_device_train_batch_size=rows_a_step(asked),
        gradient_accumulation_steps=1,
        learning_rate=asked.learning_rate,
        lr_scheduler_type=asked.lr_scheduler_type,
        lr_scheduler_kwargs=asked.lr_scheduler_kwargs or None,
        warmup_steps=asked.warmup_steps or asked.warmup_ratio,
        optim=asked.optim,
        weight_decay=asked.weight_decay,
        adam_beta1=asked.adam_beta1,
        adam_beta2=asked.adam_beta2,
        adam_epsilon=asked.adam_epsilon,
        max_grad_norm=asked.max_grad_norm,
        label_smoothing_factor=asked.label_smoothing_factor,
        neftune_noise_alpha=asked.neftune_noise_alpha,
        seed=asked.seed,
        data_seed=asked.data_seed if asked.data_seed is not None else asked.seed,
        train_sampling_strategy="random" if settings.dataset.shuffle_dataset else "sequential",
        use_cpu=model.device.type == "cpu",
        bf16=precision == "bfloat16",
        fp16=precision == "float16",
        logging_steps=1,
        logging_nan_inf_filter=False,  # it would hide that the loss is no number
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        label_names=["labels"],
        dataloader_pin_memory=False,
        **more,
    )
    made._n_gpu = min(made.n_gpu, 1)  # noqa: SLF001 -- more are seen where nothing but CUDA counts them, and are others'
    return made
