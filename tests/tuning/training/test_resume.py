"""Real runs that are cut off and gone on from: the same adapter, bit for bit, and the same losses."""

import hashlib
import json
import shutil
import signal
import time
from types import SimpleNamespace

import pytest

from tests.tuning import words
from tests.tuning.conftest import start, tuning_config
from tuning.config import Exit, Progress, parse_termination
from tuning.output import checkpoints, volume

ROWS = "".join(json.dumps({"messages": words.conversation(each, words.B)}) + "\n" for each in words.QUESTIONS)
STEPS = 120
OFTEN = 0.1  # seconds
FOLDER = ".checkpoints-an-intent"
TRAINING = {
    "arguments": {"num_train_epochs": 12, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2},
    "lora": {"lora_dropout": 0.1},
}


class World:
    """Volumes of one Workspace, and attempts that each have a scratch of their own."""

    def __init__(self, folder, hub):
        self.folder, self.hub, self.attempts = folder, hub, 0
        self.results = folder / "results"
        for name in ("data", "results"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / "data" / "train.jsonl").write_text(ROWS)

    def start(self, *, seconds=OFTEN, training=TRAINING):
        self.attempts += 1
        places = {"input": {"volume": "pvc/in"}, "output": {"volume": "pvc/out"}}
        config = tuning_config("", [], training=training, checkpoint_seconds=seconds, **places)
        own = self.folder / f"attempt-{self.attempts}"
        own.mkdir()
        options = [f"--data={self.folder / 'data'}", f"--results={self.results}"]
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


@pytest.fixture(scope="module")
def calm(tmp_path_factory, models):
    """What a run makes that nobody disturbs and that takes no checkpoints."""
    world = World(tmp_path_factory.mktemp("calm"), models)
    done = world.run(seconds=0)
    assert done.code == Exit.DONE, done.err
    assert not (world.results / FOLDER).exists()
    return world.made()


@pytest.fixture(scope="module")
def killed(tmp_path_factory, models):
    """Where a run was killed that had taken two checkpoints."""
    world = World(tmp_path_factory.mktemp("killed"), models)
    running = world.start()
    world.until(running, 2)
    running.kill()
    running.communicate()
    assert 0 < world.steps()[-1] < STEPS
    return world


@pytest.fixture
def world(tmp_path, killed):
    shutil.copytree(killed.results, tmp_path / "results")
    return World(tmp_path, killed.hub)


@pytest.mark.torch
def test_a_run_that_was_killed_goes_on_as_if_it_had_not_been(world, calm):
    newest = world.steps()[-1]
    done = world.run()
    assert done.code == Exit.DONE, done.err
    assert {line.resumed_from_step for line in done.lines if line.phase == "train"} == {newest}
    assert world.made() == calm
    assert not (world.results / FOLDER).exists()


@pytest.mark.torch
def test_a_damaged_checkpoint_costs_the_steps_since_the_one_before(world, calm):
    before, newest = world.steps()
    damaged = world.results / FOLDER / f"checkpoint-{newest}" / "optimizer.pt"
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    done = world.run()
    assert done.code == Exit.DONE, done.err
    assert f"checkpoint-{newest} is passed over: optimizer.pt is not what was written" in done.err
    assert f"training goes on after step {before}" in done.err
    assert world.made() == calm


@pytest.mark.torch
def test_an_eviction_takes_a_last_checkpoint_and_says_where_it_goes_on(tmp_path, models, calm):
    world = World(tmp_path, models)
    running = world.start(seconds=1000)
    for line in running.stdout:
        if Progress.parse(line.strip()).phase == "train":
            break
    running.send_signal(signal.SIGTERM)
    evicted = world.end(running)
    assert evicted.code == Exit.EVICTED, evicted.err
    (step,) = world.steps()
    assert 0 < step < STEPS
    assert evicted.left.message.endswith(f"after step {step} of {STEPS}; the next attempt goes on from step {step}")
    done = world.run(seconds=1000)
    assert done.code == Exit.DONE, done.err
    assert f"training goes on after step {step}" in done.err
    assert world.made() == calm


@pytest.mark.torch
def test_other_data_is_trained_on_from_the_beginning(world):
    rows = ROWS.splitlines(keepends=True)
    (world.folder / "data" / "train.jsonl").write_text("".join(rows[1:]))
    done = world.run()
    assert done.code == Exit.DONE, done.err
    assert done.err.count("it is of other rows, settings or another model") == 2
    assert {line.resumed_from_step for line in done.lines} == {None}
    assert world.made()[1]["rows"] == len(rows) - 1


@pytest.mark.torch
def test_a_checkpoint_that_is_whole_and_of_no_use_is_out_of_the_way_of_the_next_attempt(world):
    before, newest = world.steps()
    checkpoint = world.results / FOLDER / f"checkpoint-{newest}"
    (checkpoint / "optimizer.pt").write_bytes(b"of another release")
    manifest = json.loads((checkpoint / checkpoints.MANIFEST).read_text())
    manifest["files"]["optimizer.pt"] = hashlib.sha256(b"of another release").hexdigest()
    (checkpoint / checkpoints.MANIFEST).write_text(json.dumps(manifest))
    done = world.run()
    assert (done.code, done.left.retryable) == (Exit.NODE_TROUBLE, True), done.err
    assert f"checkpoint-{newest} cannot be gone on from" in done.left.message
    assert world.steps() == [before]


@pytest.mark.torch
def test_a_volume_too_small_for_checkpoints_gets_its_adapter(tmp_path, models, small, calm):
    world = World(tmp_path, models)
    world.results = small
    (small / "mine.bin").write_bytes(bytes(600 << 10))  # what is left is room for one of them
    done = world.run()
    assert done.code == Exit.DONE, done.err
    assert "no checkpoint after step" in done.err
    assert world.made() == calm
    assert not (small / FOLDER).exists()
