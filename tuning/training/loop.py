"""The Trainer whose optimizer steps are divided here: rows of a step are laid out as micro-batches that fit the GPU.

To transformers a batch is a whole step; gradients of its micro-batches add up within `training_step`. So a step may be
tried again in smaller ones when memory does not suffice, and no order of rows, schedule or random number depends on it.
"""

import gc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
import transformers

from tuning.curve import NAME as CURVE
from tuning.curve import Curve
from tuning.data.masks import Encoded
from tuning.eviction import Eviction
from tuning.output.checkpoints import Checkpoints
from tuning.report import log
from tuning.training import adapter, attention, batches, head, ladder, model, packing, stops
from tuning.training.batches import Batches, ByLength, supervised
from tuning.training.world import World
from tuning.training_config import TrainingConfig

BEST = "best_model.safetensors"


class Setup(NamedTuple):
    """What a run's loop works with, beside the model and its rows."""

    settings: TrainingConfig
    batches: Batches
    resolved: ladder.Resolved
    eviction: Eviction
    checkpoints: Checkpoints | None
    curve: Curve
    world: World = World()


class _NoTimeError(Exception):
    """The pod was asked to go while rows held out were looked at."""


class Trainer(transformers.Trainer):  # type: ignore[misc]
    """transformers' Trainer, with steps, evaluation and checkpoints of its own."""

    def __init__(self, setup: Setup, **more: Any) -> None:
        super().__init__(data_collator=lambda items: {"rows": batches.rows(items)}, **more)
        self.setup = setup
        self.resolved = setup.resolved
        self.best: dict[str, Any] | None = None
        """The adapter's weights when the loss on the rows held out was lowest, if they are asked for."""
        self.ended_early = False
        if self.resolved.packing:
            attention.by_rows(self.model)
        self._watched = head.Watched(self.model) if self.resolved.chunked_head else None
        self._tried = False
        self._others: list[Any] = []
        """Where random numbers of the other processes stand."""
        if self.resolved.checkpointing:
            model.recompute(self.model)

    def _run_epoch(self, **how: Any) -> None:
        """What is left of an epoch, after what the attempt before had no time for: a look at the rows held out."""
        if not self._tried and self._owes_a_look():
            self.evaluate()
        if not self.control.should_training_stop:
            super()._run_epoch(**how)

    def _owes_a_look(self) -> bool:
        step, looked = self.state.global_step, {at["step"] for at in self.state.log_history if "eval_loss" in at}
        due = self.args.eval_strategy == "steps" and step % self.state.eval_steps == 0
        return bool(due and step and step not in looked)

    # -- the step

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Any:  # noqa: ARG002
        """Gradients of one optimizer step; its loss."""
        if not (self._tried and model.training):  # at first it may be so in part: a checkpoint's adapter is not
            model.train()  # which goes through all modules
        rows = inputs["rows"]
        if not self._tried:
            self._tried = True
            self._fitting(lambda: self._try_largest(model), model)
        self.setup.batches.count(rows)
        loss = self._fitting(lambda: self._gradients(model, rows), model)
        return self.setup.world.add_gradients(model.parameters(), loss)

    def _gradients(self, model: Any, rows: Sequence[Encoded]) -> Any:
        """Of this process's rows."""
        learned = torch.tensor(float(sum(map(supervised, rows))), device=self.args.device)
        mine = self.setup.world.mine(rows)
        total = torch.zeros((), device=self.args.device)
        for micro in self._laid_out(mine, self.resolved.tokens):
            loss = self._loss(model, mine, micro, learned)
            self.accelerator.backward(loss)
            total += loss.detach()
        return total

    def _try_largest(self, model: Any) -> None:
        """About the largest micro-batch that can come, so that what does not fit is known before the first step."""
        before, rows = _random_numbers(), self._longest()
        micro = max(self._laid_out(rows, self.resolved.tokens), key=lambda micro: micro.tokens)
        self.accelerator.backward(self._loss(model, rows, micro, torch.ones((), device=self.args.device)))
        model.zero_grad()
        _draw_again(before)

    def _fitting(self, attempt: Callable[[], Any], model_: Any) -> Any:
        """Attempt it until it fits the memory of all GPUs, one step down the ladder each time that it does not."""
        before = _random_numbers()
        while True:
            found, why = None, ""
            try:
                found = attempt()
            except torch.OutOfMemoryError as error:
                why = str(error).partition("\n")[0][:200]
            if not self.setup.world.any(bool(why)):
                return found
            model_.zero_grad()  # outside of the except: the error holds on to what the failed attempt had made
            gc.collect()
            torch.cuda.empty_cache()
            self._lower(why or "so another GPU of this node says")
            _draw_again(before)

    def _lower(self, why: str) -> None:
        longest = self._longest()
        largest = max(micro.tokens for micro in self._laid_out(longest, self.resolved.tokens))
        alone = self._laid_out(longest[:1], 0)[0].tokens
        computed_twice = self.resolved.checkpointing
        self.resolved = ladder.lower(self.resolved, alone, largest, why)
        if self.resolved.checkpointing and not computed_twice:
            model.recompute(self.model)

    def _longest(self) -> list[Encoded]:
        """The most that a process can get of one step."""
        fullest = sorted(self.train_dataset, key=lambda item: -batches.tokens(item))[: self._train_batch_size]
        found = sorted(batches.rows(fullest), key=lambda row: -len(row.ids))
        found[0] = max(batches.rows(self.train_dataset), key=lambda row: len(row.ids))  # it cannot be divided
        return found[: self.setup.world.share(len(found))]

    def _laid_out(self, rows: Sequence[Encoded], limit: int) -> list[packing.Micro]:
        if not rows:
            return []  # the last step of an epoch may have fewer rows than there are processes
        lengths, multiple = [len(row.ids) for row in rows], self.setup.batches.multiple
        if self.resolved.packing:
            return packing.packed(lengths, limit, multiple=multiple)
        return packing.padded(lengths, limit, multiple=multiple)

    def _loss(self, model: Any, rows: Sequence[Encoded], micro: packing.Micro, learned: Any) -> Any:
        """What the micro-batch adds to the mean over all tokens that are learned from in the step."""
        tensors = self.setup.batches.tensors(rows, micro, packed=self.resolved.packing)
        inputs = self._prepare_inputs(tensors)
        if self._watched:
            return self._watched.loss(model, inputs) / learned
        loss = self.compute_loss(model, inputs, num_items_in_batch=learned)
        if self.model_accepts_loss_kwargs or self.label_smoother:
            return loss
        return loss * sum(supervised(rows[row]) for line in micro.lines for row in line) / learned

    def floating_point_ops(self, inputs: Any) -> int:  # noqa: ARG002
        """Nobody asks."""
        return 0

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        if self.resolved.packing or not self.setup.settings.dataset.shuffle_dataset:
            return super()._get_train_sampler(train_dataset)
        lengths = [batches.tokens(item) for item in self.train_dataset]
        return ByLength(lengths, self._train_batch_size, self.args.data_seed)

    # -- evaluation

    def evaluate(self, *_unused: Any, **_more: Any) -> dict[str, float]:
        """The mean loss of the tokens held out; empty when the pod has to go before it is known, or it does not fit."""
        self.control.should_evaluate = False
        try:
            loss = self._mean(self.eval_dataset)
        except _NoTimeError:
            log.warning("the node asks the pod to go; the rows held out are left, to the next attempt if there is one")
            self.control.should_training_stop = True
            (self.control.should_save,) = self.setup.world.told([self._may_save()])
            return {}
        except torch.OutOfMemoryError as error:
            log.warning(
                "the rows held out do not fit the GPU's memory (%s); lower"
                " TrainingArguments.per_device_eval_batch_size to know the loss on them",
                str(error).partition("\n")[0][:300],
            )
            return {}
        self.log({"eval_loss": loss})
        self._judge()
        return {"eval_loss": loss}

    def _mean(self, rows: Sequence[Encoded]) -> float:
        world = self.setup.world
        mine = world.mine(rows)
        learned = torch.tensor(float(sum(map(supervised, rows))), device=self.args.device)
        total = torch.zeros((), device=self.args.device)
        model.calm(self.model)
        with torch.no_grad():
            micros = self._laid_out(mine, self._held_out_at_once())
            for number in range(world.most(len(micros))):
                if world.any(self.setup.eviction.requested):
                    raise _NoTimeError
                total += self._held_out(mine, micros[number : number + 1], learned)
        return float(world.added(total))

    def _may_save(self) -> bool:
        """Whether there is time for a checkpoint before the pod goes; after the last step comes the adapter itself."""
        kept, last = self.setup.checkpoints, self.state.global_step == self.state.max_steps
        return kept is not None and not last and kept.fits(self.setup.eviction.left())

    def _held_out(self, rows: Sequence[Encoded], micros: list[packing.Micro], learned: Any) -> Any:
        """What they add to the mean; OutOfMemoryError in all processes if in one."""
        found, why = 0, ""
        try:
            found = sum(self._loss(self.model, rows, micro, learned) for micro in micros)
        except torch.OutOfMemoryError as error:
            why = str(error)
        if self.setup.world.any(bool(why)):
            raise torch.OutOfMemoryError(why or "on another GPU of this node")
        return found

    def _held_out_at_once(self) -> int:
        asked = self.setup.settings.arguments
        return asked.per_device_eval_batch_size * asked.max_length

    def _judge(self) -> None:
        asked = self.setup.settings.arguments
        losses = [entry["eval_loss"] for entry in self.state.log_history if "eval_loss" in entry]
        if asked.load_best_model_at_end and stops.is_best(losses):
            self.best = adapter.weights(self.model)
        patience, threshold = asked.early_stopping_patience, asked.early_stopping_threshold
        if self.is_in_train and stops.gains_no_more(losses, patience, threshold):
            self.ended_early = self.control.should_training_stop = True
            log.info("the loss on the rows held out was no lower %d times in a row; training ends", patience)

    # -- checkpoints

    def load_best(self, folder: Path) -> None:
        """What an earlier attempt had found to be best, if anything."""
        if (folder / BEST).exists():
            self.best = safetensors.torch.load_file(folder / BEST)

    def _save_checkpoint(self, _model: Any, _trial: Any) -> None:
        """The adapter without its base, whole or not there."""
        kept, self._others = self.setup.checkpoints, self.setup.world.gathered(_random_numbers())[1:]
        if kept and not self.ended_early and kept.write(self.state.global_step, self._fill):
            self.setup.eviction.resumes_from = self.state.global_step

    def _fill(self, folder: Path) -> None:
        """Under the names that `train` looks for."""
        safetensors.torch.save_file(adapter.weights(self.model), folder / "adapter_model.safetensors")
        if self.best:
            safetensors.torch.save_file(self.best, folder / BEST)
        self._save_optimizer_and_scheduler(str(folder))
        self._save_scaler(str(folder))
        self._save_rng_state(str(folder))
        for rank, drawn in enumerate(self._others, start=1):
            torch.save(drawn, folder / _drawn(rank))
        self.state.save_to_json(str(folder / "trainer_state.json"))
        self.resolved.write(folder)
        self.setup.curve.write(folder / CURVE)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Process 0's, as transformers has it; each other's own, begun anew where there were not as many."""
        super()._load_rng_state(checkpoint)
        rank = self.setup.world.rank
        if checkpoint and rank:
            own = Path(checkpoint, _drawn(rank))
            if own.exists():
                _draw_again(torch.load(own, weights_only=True))
            else:
                torch.manual_seed(self.args.seed + rank)  # as at the beginning: process 0's would drop the same out


def _drawn(rank: int) -> str:
    return f"random_numbers_{rank}.pt"


def _random_numbers() -> list[Any]:
    """Where the generators that dropout draws from stand."""
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state()] if torch.cuda.is_available() else [])]


def _draw_again(states: list[Any]) -> None:
    torch.set_rng_state(states[0])
    for state in states[1:]:
        torch.cuda.set_rng_state(state)
