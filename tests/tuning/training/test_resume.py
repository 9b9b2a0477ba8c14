"""Real runs that are cut off and gone on from: the same adapter, bit for bit, and the same losses."""

import hashlib
import json
import random
import shutil
import signal
import time

import pytest

from tests.tuning import servers
from tests.tuning.worlds import FOLDER, ROWS, STEPS, RegistryWorld, World
from tuning import curve
from tuning.config import Exit, Progress
from tuning.output import checkpoints


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
    rows = [(row.step, row.attempt) for row in curve.read(world.results / curve.NAME)]
    assert rows == [(step, 1 if step <= newest else 2) for step in range(1, STEPS + 1)]
    assert f", resumed from {newest} |" in (world.results / "README.md").read_text()


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
    _await_training(running)
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


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    """One that lets checkpoints be deleted."""
    with servers.Registry(tmp_path_factory.mktemp("registry"), password=True, deletes=True) as server:
        yield server


@pytest.fixture(scope="module")
def pushed(tmp_path_factory, models, registry):
    """What a run pushes that nobody disturbs."""
    world = RegistryWorld(tmp_path_factory.mktemp("pushed"), models, registry, "team/calm")
    done = world.run(seconds=0)
    assert done.code == Exit.DONE, done.err
    return world.made()


@pytest.mark.torch
def test_a_run_whose_node_is_lost_goes_on_from_the_registry(tmp_path, models, registry, pushed):
    world = RegistryWorld(tmp_path, models, registry, "team/lost")
    running = world.start()
    world.until(running, 1)
    running.kill()
    running.communicate()
    [step] = world.steps()
    done = world.run()
    assert done.code == Exit.DONE, done.err
    assert f"has the checkpoint after step {step}: it is gone on from" in done.err
    assert {line.resumed_from_step for line in done.lines if line.phase == "train"} == {step}
    assert world.made() == pushed
    assert (world.steps(), done.left.left) == ([], "")


@pytest.mark.torch
def test_an_eviction_brings_a_last_checkpoint_into_the_registry(tmp_path, models, registry, pushed):
    world = RegistryWorld(tmp_path, models, registry, "team/evicted")
    running = world.start(seconds=1000)
    _await_training(running)
    running.send_signal(signal.SIGTERM)
    evicted = world.end(running)
    assert evicted.code == Exit.EVICTED, evicted.err
    [step] = world.steps()
    assert evicted.left.message.endswith(f"the next attempt goes on from step {step}")
    assert world.run(seconds=1000).code == Exit.DONE
    assert world.made() == pushed


@pytest.mark.torch
@pytest.mark.parametrize("seed", [1, 2])
def test_kills_at_any_moment_leave_no_trace(tmp_path, models, registry, calm, pushed, seed):
    drawn = random.Random(seed)
    world = World(tmp_path, models) if seed % 2 else RegistryWorld(tmp_path, models, registry, f"team/kills-{seed}")
    for _ in range(2):
        running = world.start()
        _await_training(running)
        time.sleep(drawn.uniform(0, 1.5))
        running.kill()
        running.communicate()
    done = world.run()
    assert done.code == Exit.DONE, done.err
    assert world.made() == (calm if seed % 2 else pushed)


def _await_training(running):
    for line in running.stdout:
        if Progress.parse(line.strip()).phase == "train":
            return
