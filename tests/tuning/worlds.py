"""What is there of one Workspace while its runs are killed: data, where the adapter goes, a disk for each attempt."""

import json
import time
from types import SimpleNamespace

from tests import terminations
from tests.tuning import words
from tests.tuning.conftest import entry, start, tuning_config, write_secret
from tuning.config import Progress
from tuning.output import volume

ROWS = "".join(json.dumps({"messages": words.conversation(each, words.B)}) + "\n" for each in words.QUESTIONS)
STEPS = 120
OFTEN = 0.1  # seconds
FOLDER = ".checkpoints-an-intent"
TRAINING = {
    "arguments": {"num_train_epochs": 12, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2},
    "lora": {"lora_dropout": 0.1},
}
SAME = ("loss_curve", "loss", "steps", "rows", "eval_loss")
"""Of the card: what an attempt that was cut off leaves no trace in."""


class World:
    """Volumes of one Workspace, and attempts that each have a scratch of their own."""

    more = {"input": {"volume": "pvc/in"}, "output": {"volume": "pvc/out"}}
    options = ()

    def __init__(self, folder, hub):
        self.folder, self.hub, self.attempts = folder, hub, 0
        self.results = folder / "results"
        for name in ("data", "results"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / "data" / "train.jsonl").write_text(ROWS)

    def start(self, *, seconds=OFTEN, training=TRAINING, **more):
        self.attempts += 1
        config = tuning_config("", [], training=training, checkpoint_seconds=seconds, **{**self.more, **more})
        self.own = self.folder / f"attempt-{self.attempts}"
        self.own.mkdir()
        options = [f"--data={self.folder / 'data'}", f"--results={self.results}", *self.options]
        return start(self.own, config, *options, HF_ENDPOINT=self.hub.url)

    def end(self, running):
        out, err = running.communicate(timeout=500)
        left = (self.own / "termination").read_text()
        lines = [Progress.parse(line) for line in out.splitlines()]
        return SimpleNamespace(code=running.returncode, err=err, left=terminations.of_tuning(left), lines=lines)

    def run(self, **more):
        return self.end(self.start(**more))

    def saving(self):
        """Whether a checkpoint is being written."""
        return bool(list(self.checkpoints().glob(".incoming-*")))

    def checkpoints(self):
        return self.results / FOLDER

    def steps(self):
        """Of the checkpoints that are there for the next attempt."""
        found = self.checkpoints().glob("checkpoint-*/manifest.json")
        return sorted(int(path.parent.name.removeprefix("checkpoint-")) for path in found)

    def until(self, running, count):
        """Wait for so many checkpoints."""
        while len(self.steps()) < count:
            assert running.poll() is None, running.communicate()[1]
            time.sleep(0.005)

    def made(self):
        """What is at the output: the adapter's digest, and of its card what must be the same."""
        card = json.loads((self.results / volume.CARD).read_text())
        return volume.digest(self.results), {name: card[name] for name in SAME}


class RegistryWorld(World):
    """With a registry for the adapter, and checkpoints beside it."""

    def __init__(self, folder, hub, registry, repository):
        super().__init__(folder, hub)
        self.registry, self.repository = registry, repository
        auth = write_secret(folder / "push.json", {registry.host: entry()})
        self.options = (f"--push-auth={auth}",)
        self.more = {
            "input": {"volume": "pvc/in"},
            "output": {"image": f"{registry.host}/{repository}:1"},
            "checkpoint_push_seconds": 0,
        }

    def checkpoints(self):
        return self.own / "scratch" / FOLDER

    def steps(self):
        found = self.registry.manifest(self.repository, "1-ckpt-an-inten")
        return [int(found["annotations"]["sh.kaito.hera.step"])] if found else []

    def made(self):
        """The layer with the adapter itself, and its loss."""
        manifest = self.registry.manifest(self.repository, "1")
        return manifest["layers"][0]["digest"], manifest["annotations"]["sh.kaito.hera.loss"]
