"""One tuning run, from the question whether it is needed to the adapter in its place: phases in their order."""

import contextlib
import hashlib
import os
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from artifacts.weights import pace
from tuning.config import MESSAGE_LENGTH, Progress, Result, TuningConfig
from tuning.data import fetch, inputs, masks, rows
from tuning.errors import DataInvalid
from tuning.eviction import Eviction
from tuning.output import cards, checkpoints, destination, patience
from tuning.places import Places
from tuning.report import Report, log
from tuning.training import adapter, distributed, hub, model, train, work
from tuning.training_config import DatasetConfig

SAMPLES = 3


class Data(NamedTuple):
    """Rows for the model, and what is known of them."""

    training: list[masks.Encoded]
    held_out: list[masks.Encoded]
    facts: dict[str, Any]
    samples: list[str]
    """A few, as the model reads them."""


@dataclass(frozen=True)
class Run:
    """One run of one config."""

    config: TuningConfig
    places: Places
    report: Report
    eviction: Eviction

    def go(self) -> Result:
        """Train the adapter and put it where it is to go, unless it is there already."""
        for warning in self.config.training.warnings:
            log.warning("training_config.yaml: %s", warning)
        self.report.say(Progress(phase="fetch", percent=0))
        if made := destination.find(self.config, self.places):
            log.info("%s was made by the same intent; nothing to train", made)
            self.report.say(Progress(phase="push", percent=100))
            return Result(adapter=made)
        use_scratch(self.places.scratch)
        names = distributed.members(self.config.processes, train.rows_a_step(self.config.training.arguments))
        if self.config.require_gpu:
            model.require_gpu()  # before minutes go by with a model that nothing here can train

        data_files = self._fetch_data()
        dropped = rows.Dropped()
        found = rows.read(data_files, self.config.training.dataset, dropped)
        folder = self._fetch_model()

        self.report.say(Progress(phase="load", percent=4, message="turning rows into tokens"))
        tokenizer = self._tokenizer(folder)
        data = self._encode(tokenizer, found, dropped, data_files)
        same = identity(self.config, data.training, work.device().partition(":")[0])
        kept = destination.kept(self.config, self.places, same, self.eviction)
        start = train.start(kept) if kept else None
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id or 0
        computes = work.computes(self.config, start)
        todo = work.Work(self.config, folder, pad, data.training, data.held_out, start, computes)

        with contextlib.ExitStack() as patient:
            adapted, trained = self._train(names, todo, kept, patient)
            files = self._save(adapted, tokenizer)
            facts = data.facts | {"processes": len(names)}
            card = cards.summary(self.config, trained, facts, self.report.curve)
            files |= cards.tell(self.places.scratch / "adapter", card, self.report.curve, data.samples)
            put = self._put(files, card, trained.loss, kept)
        return Result(adapter=put.name, loss=round(trained.loss, 5), left=put.left)

    def _fetch_data(self) -> list[fetch.File]:
        """The data's files; a volume's are there, and only looked at."""
        said: dict[str, Any] = {"percent": 0, "message": "fetching data"}

        def say(**news: Any) -> None:
            said.update(news)
            self.report.say(Progress(phase="fetch", **said))

        def tell(words: str) -> None:
            log.info(words)
            say(message=words)

        told = pace.telling(self.places.scratch, tell, "data")
        with contextlib.nullcontext() if self.config.input.volume else told:
            return inputs.files(self.config, self.places, lambda share: say(percent=int(3 * share)))

    def _fetch_model(self) -> Path:
        """The folder with the base model's files."""

        def tell(words: str) -> None:
            log.info(words)
            self.report.say(Progress(phase="fetch", percent=3, message=words))

        self.report.say(Progress(phase="fetch", percent=3, message="fetching the base model"), last=True)
        return hub.download(self.config, self.places, tell=tell)

    def _tokenizer(self, folder: Path) -> Any:
        tokenizer = model.tokenizer(folder, self.config.training.model.chat_template)
        if tokenizer.chat_template is None:
            tokenizer.chat_template = masks.PLAIN_TEMPLATE
            log.warning(
                "%s has no chat template; a plain one is used, and saved beside the adapter", self.config.model.id
            )
        return tokenizer

    def _encode(self, tokenizer: Any, found: list[rows.Found], dropped: rows.Dropped, files: list[fetch.File]) -> Data:
        """Token ids and labels of what is trained on and what is held out; shows a few."""
        settings = self.config.training.dataset
        encoder = masks.Encoder(tokenizer, max_length=self.config.training.arguments.max_length, loss=settings.loss)
        encoded = encoder.encode_all(found, dropped)
        if not encoded:
            raise DataInvalid(f"tuning.input: no row of {dropped.count} can be used: {dropped}")
        if dropped.count:
            log.warning("%d of %d rows are left out: %s", dropped.count, dropped.count + len(encoded), dropped)
        training, held_out = split(encoded, settings)
        tokens = sum(len(row.ids) for row in encoded)
        learned = sum(label != masks.IGNORED for row in encoded for label in row.labels)
        log.info("%d rows, %d tokens, %d of them learned from", len(encoded), tokens, learned)
        samples = [encoder.show(row) for row in training[:SAMPLES]]
        for number, sample in enumerate(samples, start=1):
            log.info("sample %d, learned from between ⟦ and ⟧:\n%s", number, sample)
        facts = {
            "data": [{"name": file.name, "bytes": file.size, "sha256": file.sha256} for file in files],
            "rows": len(training),
            "rows_held_out": len(held_out),
            "rows_dropped": dropped.count,
        }
        return Data(training, held_out, facts, samples)

    def _train(
        self, names: list[str], todo: work.Work, kept: checkpoints.Checkpoints | None, patient: contextlib.ExitStack
    ) -> tuple[Any, train.Trained]:
        """The model with the adapter as it is learned, by one process for each GPU."""
        with distributed.launched(todo, self.places.scratch, names) as join:
            adapted = todo.load()
            patient.enter_context(self.eviction.deferred())  # training stops at a step's end, a push is soon done
            began = time.monotonic()
            trained = todo.learn(
                adapted,
                join(),
                report=self.report,
                eviction=self.eviction,
                scratch=self.places.scratch,
                checkpoints=kept,
            )
        seconds, steps = time.monotonic() - began, len(trained.losses) - trained.resumed_from
        log.info("%d steps in %.1f s, loss %.4g -> %.4g", steps, seconds, trained.losses[0], trained.loss)
        if trained.eval_loss is not None:
            log.info("loss on the %d rows held out: %.4g", len(todo.held_out), trained.eval_loss)
        return adapted, trained

    def _save(self, adapted: Any, tokenizer: Any) -> dict[str, Path]:
        """The adapter's files, on the disk that dies with the pod."""
        folder = self.places.scratch / "adapter"
        files = adapter.save(adapted, folder, self.config)
        files["chat_template.jinja"] = folder / "chat_template.jinja"
        files["chat_template.jinja"].write_text(tokenizer.chat_template)
        return files

    def _put(
        self, files: dict[str, Path], card: dict[str, Any], loss: float, saved: checkpoints.Checkpoints | None
    ) -> destination.Put:
        pushing = Progress(phase="push", percent=95, loss=round(loss, 5))
        self.report.say(pushing)
        waits = patience.Patience(
            self.eviction,
            seconds=self.config.push_seconds,
            usd_per_hour=self.config.usd_per_hour,
            tell=lambda text: self.report.say(pushing.model_copy(update={"message": text[:MESSAGE_LENGTH]})),
        )
        put = destination.put(self.config, self.places, files, card, waits=waits, saved=saved)
        done = f"{put.left} cannot be deleted" if put.left else "the adapter is in its place"
        self.report.say(Progress(phase="push", percent=100, loss=round(loss, 5), message=done), last=True)
        return put


def split(found: list[masks.Encoded], settings: DatasetConfig) -> tuple[list[masks.Encoded], list[masks.Encoded]]:
    """What is trained on, and what is held out; shuffled first, since files are often sorted."""
    ordered = list(found)
    if settings.shuffle_dataset:
        random.Random(settings.shuffle_seed).shuffle(ordered)  # noqa: S311
    kept = max(1, round(len(ordered) * settings.train_test_split))
    return ordered[:kept], ordered[kept:]


def identity(config: TuningConfig, training: list[masks.Encoded], computes: str) -> str:
    """What has to be the same for a checkpoint to count: all that decides what a step does to the adapter.

    But for how it is computed, which the checkpoint says and the next attempt keeps. An upgrade must not change it: the
    runs that it interrupts would begin anew.
    """
    return checkpoints.identity(
        model=[config.model.id, config.model.revision, config.model.image],
        method=config.method,
        settings=config.training.decides,
        rows=digest(training),
        computes=computes,
    )


def digest(found: list[masks.Encoded]) -> str:
    """Of what is learned, in its order: it stands for data, tokenizer, template and what is held out."""
    whole = hashlib.sha256()
    for row in found:
        whole.update(f"{len(row.ids)} ".encode() + row.ids.tobytes() + row.labels.tobytes())
    return whole.hexdigest()


def use_scratch(scratch: Path) -> None:
    """Let libraries keep to the one folder that is writable, and to what they are needed for."""
    scratch.mkdir(parents=True, exist_ok=True)
    for name, value in {
        "HF_HOME": str(scratch / "hub"),
        "TRITON_CACHE_DIR": str(scratch / "triton"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTORCH_ALLOC_CONF": "expandable_segments:True",  # long rows between short ones do not fragment the memory
        "TORCHDYNAMO_DISABLE": "1",  # nothing is compiled here, and importing the compiler takes seconds
    }.items():
        os.environ.setdefault(name, value)
