"""A run that goes on computes as it did before: in the same format, as much at once, packed or not."""

import json
import shutil

import pytest

from tests.tuning.worlds import FOLDER, TRAINING, World
from tuning.config import Exit
from tuning.output import checkpoints, entries
from tuning.training import ladder, loop

PADDED = {
    "arguments": TRAINING["arguments"]
    | {
        "neftune_noise_alpha": 5.0,  # goes by the length of a line, so that rows are not packed
        "eval_strategy": "steps",
        "eval_steps": 5,
        "load_best_model_at_end": True,
        "learning_rate": 2e-2,
    },
    "dataset": {"train_test_split": 0.8},
}


@pytest.fixture(scope="module")
def killed(tmp_path_factory, models):
    """Where a run was killed that packs, and had taken a checkpoint."""
    world = World(tmp_path_factory.mktemp("killed"), models)
    kill(world)
    return world


@pytest.fixture
def world(tmp_path, killed):
    shutil.copytree(killed.results, tmp_path / "results")
    return World(tmp_path, killed.hub)


def kill(world, **how):
    running = world.start(**how)
    world.until(running, 1)
    running.kill()
    running.communicate()


def settled(world):
    """How the newest checkpoint was computed, and where that is written."""
    folder = world.results / FOLDER / f"checkpoint-{world.steps()[-1]}"
    return ladder.Resolved.of(folder), folder


def settle(world, **otherwise):
    """As if it had been computed in another way."""
    for folder in (world.results / FOLDER).glob("checkpoint-*"):
        before = ladder.Resolved.of(folder)
        say(folder, before.model_copy(update=otherwise).model_dump_json())


def say(folder, text):
    (folder / ladder.NAME).write_text(text)
    manifest = json.loads((folder / checkpoints.MANIFEST).read_text())
    manifest["files"][ladder.NAME] = entries.sha256(folder / ladder.NAME)
    (folder / checkpoints.MANIFEST).write_text(json.dumps(manifest))


@pytest.mark.torch
def test_rows_that_are_not_packed_and_what_was_best_outlive_the_process(tmp_path, models):
    calm, cut = World(tmp_path / "calm", models), World(tmp_path / "cut", models)
    done = calm.run(seconds=0, training=PADDED)
    assert done.code == Exit.DONE, done.err
    assert "rows are not packed, which is slower: neftune_noise_alpha" in done.err
    assert "the adapter is the one with the lowest loss on the rows held out" in done.err
    kill(cut, training=PADDED)
    before, folder = settled(cut)
    assert not before.packing
    assert (folder / loop.BEST).exists() == (cut.steps()[-1] >= 5)
    done = cut.run(training=PADDED)
    assert done.code == Exit.DONE, done.err
    assert f"training goes on after step {folder.name.removeprefix('checkpoint-')}" in done.err
    assert cut.made() == calm.made()


@pytest.mark.torch
def test_a_format_that_the_device_has_is_kept_and_so_is_how_much_comes_at_once(world):
    settle(world, precision="float32", tokens=31, packing=False)
    done = world.run()
    assert done.code == Exit.DONE, done.err
    assert "on cpu in torch.float32" in done.err
    assert "computing in float32, at most 31 tokens at once, rows grouped by length and padded" in done.err


@pytest.mark.torch
def test_a_format_that_the_device_lacks_is_changed_and_shown(world):
    now, step = settled(world)[0].precision, world.steps()[-1]
    settle(world, precision="float16")
    done = world.run()
    assert done.code == Exit.DONE, done.err
    told = f"computing in {now} from step {step} on: in float16, as before, this GPU cannot"
    assert told in done.err
    assert told in [line.message for line in done.lines]


@pytest.mark.torch
def test_a_checkpoint_that_does_not_say_how_it_was_computed_is_out_of_the_way(world):
    for folder in (world.results / FOLDER).glob("checkpoint-*"):
        say(folder, "{}")
    done = world.run()
    assert done.code == Exit.DONE, done.err
    assert f"{folder.name} cannot be gone on from" in done.err
    assert {line.resumed_from_step for line in done.lines} == {None}
