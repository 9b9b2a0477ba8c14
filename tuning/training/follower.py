"""The Trainer's callback: tells of each step, says when a checkpoint is due, and stops for what cannot go on."""

import math
import time
from typing import Any

import torch
import transformers

from tuning.config import Progress
from tuning.eviction import Eviction
from tuning.output.checkpoints import Checkpoints
from tuning.report import Report
from tuning.training import stops
from tuning.training.batches import Batches
from tuning.training.train import SHARE
from tuning.training.world import World


class Follower(transformers.TrainerCallback):  # type: ignore[misc]
    """Of one attempt."""

    def __init__(
        self,
        batches: Batches,
        report: Report,
        eviction: Eviction,
        checkpoints: Checkpoints | None,
        world: World = World(),  # noqa: B008 -- a value
    ) -> None:
        self._batches = batches
        self._report = report
        self._eviction = eviction
        self._checkpoints = checkpoints
        self._world = world
        self.losses: list[float] = []
        """One per optimizer step, of earlier attempts too."""
        self.trains = False
        self.first = 0
        self._began = time.monotonic()

    def on_train_begin(self, args: Any, state: Any, _control: Any, **_more: Any) -> None:
        """What a checkpoint held is loaded, but for random numbers."""
        if self._world.rank:
            torch.manual_seed(args.seed + self._world.rank)  # or all GPUs would drop the same out
        self.losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
        self.trains, self.first, self._began = True, state.global_step, time.monotonic()
        self._report.curve.resume(self.first, self.losses)

    def on_step_begin(self, _args: Any, _state: Any, _control: Any, **_more: Any) -> None:
        """An evaluation or a checkpoint before it is no part of the step."""
        if self._checkpoints:
            self._checkpoints.begin_step()

    def on_step_end(self, _args: Any, state: Any, control: Any, **_more: Any) -> None:
        """A checkpoint comes after an evaluation of the same step, which an eviction leaves to the next attempt."""
        control.should_save = self._is_due(state)
        if self._eviction.requested:
            control.should_training_stop, control.should_evaluate = True, False
        words = control.should_save, control.should_training_stop, control.should_evaluate
        control.should_save, control.should_training_stop, control.should_evaluate = self._world.told(words)

    def on_log(self, _args: Any, state: Any, _control: Any, logs: dict[str, Any], **_more: Any) -> None:
        """After each step, and after each evaluation."""
        if "eval_loss" in logs:
            self._report.say(_evaluation(state, float(logs["eval_loss"])), last=True)
        if "loss" not in logs:
            return
        self.losses.append(float(logs["loss"]))
        stops.check(self.losses, state.max_steps)
        self._report.say(self._progress(state, logs), last=state.global_step == state.max_steps)

    def _is_due(self, state: Any) -> bool:
        """Whether a checkpoint is to be taken after this step; after the last one comes the adapter itself."""
        kept = self._checkpoints
        if kept is None or state.global_step == state.max_steps:
            return False
        return kept.fits(self._eviction.left()) if self._eviction.requested else kept.due()

    def _progress(self, state: Any, logs: dict[str, Any]) -> Progress:
        seconds = time.monotonic() - self._began
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
            tokens=self._batches.tokens,
            supervised_tokens=self._batches.supervised,
            tokens_per_second=round(self._batches.tokens / seconds, 1) if seconds > 0 else None,
            eta_seconds=round(seconds * left / (done - self.first)),
            gpu_memory_gib=round(memory, 2) or None,
            resumed_from_step=self.first or None,
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
