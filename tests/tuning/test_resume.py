"""Real runs that are cut off and gone on from: the same adapter, bit for bit, and the same losses."""

import json
import shutil
import signal
import time
from types import SimpleNamespace

import pytest

from tests.tuning import servers, words
from tests.tuning.conftest import start, tuning_config
from tuning import volume
from tuning.config import Exit, Progress, parse_termination

ROWS = "".join(json.dumps({"messages": words.conversation(each, words.B)}) + "\n" for each in words.QUESTIONS)
STEPS = 80
OFTEN = 0.1  # seconds
FOLDER = ".checkpoints-an-intent"
TRAINING = {
    "arguments": {"num_train_epochs": 8, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2},
    "lora": {"lora_dropout": 0.1},
}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    from tests.tuning import tiny

    root = tmp_path_factory.mktemp("hub") / "tiny"
    tiny.publish(root / "phi", steps=0)
    hub = servers.Hub(root.parent)
    yield hub
    hub.close()


class World:
    """Volumes of one Workspace, and attempts that each have a scratch of their own."""

    def __init__(self, folder, hub):
        self.folder, self.hub, self.attempts = folder, hub, 0
        self.results = folder / "results"
        for name in ("data", "results"):
            (folder / name).mkdir(parents=True)
        (folder / "data" / "train.jsonl").write_text(ROWS)

    def start(self, *, seconds=OFTEN, training=TRAINING):
        self.attempts += 1
        places = {"input": {"volume": "pvc/in"}, "output": {"volume": "pvc/out"}}
        config = tuning_config("", [], training=training, checkpoint_seconds=seconds, **places)
        own = self.folder / f"attempt-{self.attempts}"
        own.mkdir()
        options = [f"--{name}={self.folder / name}" for name in ("data", "results")]
        return start(own, config, *options, HF_ENDPOINT=self.hub.url)

    def end(self, running):
        out, err = running.communicate(timeout=300)
        left = (self.folder / f"attempt-{self.attempts}" / "termination").read_text()
        lines = [Progress.parse(line) for line in out.splitlines()]
        return SimpleNamespace(code=running.returncode, err=err, left=parse_termination(left), lines=lines)

    def run(self, **more):
        return self.end(self.start(**more))

    def steps(self):
        """Of the checkpoints that are there."""
        found = (self.results / FOLDER).glob("checkpoint-*/manifest.json")
        return sorted(int(path.parent.name.removeprefix("checkpoint-")) for path in found)

    def until(self, running, count):
        """Wait for so many checkpoints."""
        while len(self.steps()) < count:
            assert running.poll() is None, running.communicate()[1]
            time.sleep(0.005)

    def made(self):
        """What is at the output: the adapter's digest and its card."""
        return volume.digest(self.results), json.loads((self.results / volume.CARD).read_text())


@pytest.fixture
def world(tmp_path, models):
    return World(tmp_path, models)


@pytest.fixture(scope="module")
def calm(tmp_path_factory, models):
    """What a run makes that nobody disturbs and that takes no checkpoints."""
    world = World(tmp_path_factory.mktemp("calm"), models)
    done = world.run(seconds=0)
    assert done.code == Exit.DONE, done.err
    return world.made()


@pytest.mark.torch
def test_a_run_that_was_killed_goes_on_as_if_it_had_not_been(world, calm):
    first = world.start()
    world.until(first, 2)
    first.kill()
    first.communicate()
    newest = world.steps()[-1]
    assert 0 < newest < STEPS
    done = world.run()
    assert done.code == Exit.DONE, done.err
    assert {line.resumed_from_step for line in done.lines if line.phase == "train"} == {newest}
    assert world.made() == calm
    assert not (world.results / FOLDER).exists()
