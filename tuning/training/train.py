"""Trains the adapter: a plain transformers Trainer on rows that are token ids, from a checkpoint if there is one.

Knows neither data files nor where anything goes.
"""

import math
import time
from pathlib import Path
from typing import Any, NamedTuple

from tuning.config import Progress
from tuning.curve import NAME as CURVE
from tuning.curve import Curve
from tuning.data.masks import IGNORED, Encoded
from tuning.errors import LossDiverged, NodeTrouble, OutOfMemory, TuningError, explain
from tuning.eviction import Eviction
from tuning.output.checkpoints import Checkpoints
from tuning.report import Report, log
from tuning.training_config import DatasetConfig, TrainingArguments, TrainingConfig

SHARE = (5, 95)
"""Training's part of the whole run, in per cent."""


class Trained(NamedTuple):
    """How it went."""

    losses: list[float]
    """One per optimiser step: the mean over the tokens that are learned from."""
    eval_loss: float | None
    resumed_from: int = 0
    """Steps that earlier attempts did; their losses are among `losses`."""

    @property
    def loss(self) -> float:
        """Over the last steps, since that of one step is noise."""
        last = self.losses[-20:]
        return sum(last) / len(last)


class Batches:
    """Pads rows to a batch; labels are made before padding, so that pad may be the token that ends an answer."""

    def __init__(self, pad: int, multiple: int | None) -> None:
        self._pad = pad
        self._multiple = multiple or 1
        self.tokens = 0
        """Of all batches so far, padding left out."""
        self.supervised = 0
        """Those of them that are learned from."""

    def __call__(self, rows: list[Encoded]) -> dict[str, Any]:
        """Token ids, attention mask and labels, all of one length."""
        import torch  # noqa: PLC0415

        longest = max(len(row.ids) for row in rows)
        width = math.ceil(longest / self._multiple) * self._multiple
        batch = {
            "input_ids": torch.full((len(rows), width), self._pad),
            "attention_mask": torch.zeros((len(rows), width), dtype=torch.long),
            "labels": torch.full((len(rows), width), IGNORED),
        }
        for index, row in enumerate(rows):
            length = len(row.ids)
            batch["input_ids"][index, :length] = torch.tensor(row.ids)
            batch["attention_mask"][index, :length] = 1
            batch["labels"][index, :length] = torch.tensor(row.labels)
            self.tokens += length
            self.supervised += length - row.labels.count(IGNORED)
        return batch


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
) -> Trained:
    """Train the model's adapter in place, as if no earlier attempt had been cut off."""
    import transformers  # noqa: PLC0415

    follower = _follower(batches, report, eviction, checkpoints)
    trainer = _trainer(checkpoints, eviction, report.curve)(
        model=model,
        args=_trainer_arguments(model, settings.arguments, settings.dataset, scratch),
        train_dataset=rows,
        eval_dataset=held_out or None,
        data_collator=batches,
        callbacks=[follower],
    )
    trainer.remove_callback(transformers.PrinterCallback)  # stdout is for progress
    _go(trainer, follower, checkpoints, eviction, report.curve)
    if trainer.state.global_step < trainer.state.max_steps:
        eviction.check(f"after step {trainer.state.global_step} of {trainer.state.max_steps}")
    return Trained(follower.losses, _evaluated(trainer) if held_out else None, follower.first)


def weights(model: Any) -> dict[str, Any]:
    """The adapter's weights, by the names that its file has them under, on the CPU and as they are."""
    import peft  # noqa: PLC0415

    # the default asks the hub whether the vocabulary has grown; it has not
    found = peft.get_peft_model_state_dict(model, save_embedding_layers=False)
    return {name: tensor.detach().to("cpu").contiguous() for name, tensor in found.items()}


def _go(trainer: Any, follower: Any, checkpoints: Checkpoints | None, eviction: Eviction, curve: Curve) -> None:
    """All steps that are left to do."""
    found = checkpoints.newest() if checkpoints else None
    if checkpoints is None or found is None:
        trainer.train()
        return
    log.info("training goes on after step %d, from %s", found.step, found.path)
    eviction.resumes_from = found.step
    curve.load(found.path / CURVE)
    try:
        trainer.train(resume_from_checkpoint=str(found.path))
    except Exception as error:
        if follower.trains or type(explain(error)) is not TuningError:
            raise
        checkpoints.remove(found)  # whole, and of no use: another release's, perhaps
        raise NodeTrouble(
            f"{found.path.name} cannot be gone on from ({explain(error)}); it is removed, and the next attempt takes"
            " the one before, or starts over"
        ) from error


def _trainer(checkpoints: Checkpoints | None, eviction: Eviction, curve: Curve) -> Any:
    """The Trainer's class, whose checkpoints are ours: the adapter without its base, whole or not there."""
    import safetensors.torch  # noqa: PLC0415
    import transformers  # noqa: PLC0415

    class Trainer(transformers.Trainer):  # type: ignore[misc]  # made here to import late
        def _save_checkpoint(self, _model: Any, _trial: Any) -> None:
            if checkpoints and checkpoints.write(self.state.global_step, self._fill):
                eviction.resumes_from = self.state.global_step

        def _fill(self, folder: Path) -> None:
            """Under the names that `train` looks for."""
            safetensors.torch.save_file(weights(self.model), folder / "adapter_model.safetensors")
            self._save_optimizer_and_scheduler(str(folder))
            self._save_scaler(str(folder))
            self._save_rng_state(str(folder))
            self.state.save_to_json(str(folder / "trainer_state.json"))
            curve.write(folder / CURVE)

    return Trainer


class _NoTimeError(Exception):
    """The pod was asked to go while the finished adapter was evaluated; pushing it comes first."""


def _evaluated(trainer: Any) -> float | None:
    """The loss on what is held out; None when the pod has to go before it is known, or the GPU cannot hold it."""
    try:
        return float(trainer.evaluate()["eval_loss"])
    except _NoTimeError:
        log.warning("the node asks the pod to go; the adapter is pushed without its loss on the rows held out")
    except Exception as error:
        if not isinstance(explain(error), OutOfMemory):
            raise
        log.warning(
            "the rows held out do not fit the GPU's memory (%s); the adapter is pushed without its loss on them; lower"
            " TrainingArguments.per_device_eval_batch_size",
            str(error).partition("\n")[0][:300],
        )
    return None


def _trainer_arguments(model: Any, asked: TrainingArguments, dataset: DatasetConfig, scratch: Path) -> Any:
    import torch  # noqa: PLC0415
    import transformers  # noqa: PLC0415

    return transformers.TrainingArguments(
        output_dir=str(scratch / "trainer"),
        num_train_epochs=asked.num_train_epochs,
        max_steps=asked.max_steps or -1,
        per_device_train_batch_size=asked.per_device_train_batch_size,
        per_device_eval_batch_size=asked.per_device_eval_batch_size,
        gradient_accumulation_steps=asked.gradient_accumulation_steps,
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
        train_sampling_strategy="random" if dataset.shuffle_dataset else "sequential",
        use_cpu=model.device.type == "cpu",
        bf16=model.config.dtype == torch.bfloat16,
        fp16=model.config.dtype == torch.float16,
        logging_steps=1,
        logging_nan_inf_filter=False,  # it would hide that the loss is no number
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        label_names=["labels"],
        prediction_loss_only=True,
        dataloader_pin_memory=model.device.type != "cpu",
    )


def _follower(batches: Batches, report: Report, eviction: Eviction, checkpoints: Checkpoints | None) -> Any:
    """The Trainer's callback: reports each step, says when a checkpoint is due, stops on a bad loss or an eviction."""
    import transformers  # noqa: PLC0415

    class Follower(transformers.TrainerCallback):  # type: ignore[misc]  # made here to import late
        def __init__(self) -> None:
            self.losses: list[float] = []
            self.trains = False
            self.first = 0
            self.began = time.monotonic()

        def on_train_begin(self, _args: Any, state: Any, _control: Any, **_more: Any) -> None:
            self.losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
            self.trains, self.first, self.began = True, state.global_step, time.monotonic()
            report.curve.resume(self.first, self.losses)

        def on_step_end(self, _args: Any, state: Any, control: Any, **_more: Any) -> None:
            if eviction.requested:
                control.should_training_stop = True
            control.should_save = _is_due(checkpoints, eviction, state)

        def on_prediction_step(self, _args: Any, _state: Any, _control: Any, **_more: Any) -> None:
            if eviction.requested:
                raise _NoTimeError

        def on_log(self, _args: Any, state: Any, _control: Any, logs: dict[str, Any], **_more: Any) -> None:
            if "eval_loss" in logs:
                report.say(_evaluation(state, float(logs["eval_loss"])))
            if "loss" not in logs:
                return
            self.losses.append(_finite(float(logs["loss"]), state, self.losses))
            report.say(
                _progress(state, self.first, logs, batches, time.monotonic() - self.began),
                last=state.global_step == state.max_steps,
            )

    return Follower()


def _is_due(checkpoints: Checkpoints | None, eviction: Eviction, state: Any) -> bool:
    """Whether a checkpoint is to be taken after this step; after the last one comes the adapter itself."""
    if checkpoints is None or state.global_step == state.max_steps:
        return False
    return checkpoints.fits(eviction.left()) if eviction.requested else checkpoints.due()


def _progress(state: Any, first: int, logs: dict[str, Any], batches: Batches, seconds: float) -> Progress:
    import torch  # noqa: PLC0415

    done, left = state.global_step, state.max_steps - state.global_step
    memory = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else 0.0
    return Progress(
        phase="train",
        percent=_percent(state),
        step=done,
        max_steps=state.max_steps,
        epoch=round(state.epoch or 0.0, 3),
        loss=round(float(logs["loss"]), 5),
        learning_rate=_number(logs, "learning_rate"),
        grad_norm=_number(logs, "grad_norm"),
        tokens=batches.tokens,
        supervised_tokens=batches.supervised,
        tokens_per_second=round(batches.tokens / seconds, 1) if seconds > 0 else None,
        eta_seconds=round(seconds * left / (done - first)),
        gpu_memory_gib=round(memory, 2) or None,
        resumed_from_step=first or None,
    )


def _evaluation(state: Any, loss: float) -> Progress:
    """What the rows held out say, after the last step that was done."""
    return Progress(
        phase="train",
        percent=_percent(state),
        step=state.global_step,
        max_steps=state.max_steps,
        eval_loss=round(loss, 5) if math.isfinite(loss) else None,
    )


def _percent(state: Any) -> int:
    return int(SHARE[0] + (SHARE[1] - SHARE[0]) * state.global_step / state.max_steps)


def _number(logs: dict[str, Any], name: str) -> float | None:
    """Four digits of it, where it is one."""
    found = logs.get(name)
    return float(f"{float(found):.4g}") if found is not None and math.isfinite(float(found)) else None


def _finite(loss: float, state: Any, before: list[float]) -> float:
    if math.isfinite(loss):
        return loss
    tail = ", ".join(f"{each:.4g}" for each in before[-3:]) or "no step before"
    raise LossDiverged(
        f"the loss is {loss} at step {state.global_step} of {state.max_steps}, after {tail}; lower"
        " TrainingArguments.learning_rate or look for broken rows"
    )
