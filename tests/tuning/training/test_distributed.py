"""Several processes, as of several GPUs, train as one does."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import safetensors.torch

from tests.tuning.conftest import ROOT, tuning_config
from tests.tuning.worlds import STEPS, TRAINING, World
from tuning import errors
from tuning.config import Exit
from tuning.curve import Curve
from tuning.eviction import Eviction
from tuning.training.batches import Batches
from tuning.training_config import TrainingConfig

pytestmark = pytest.mark.torch
SURE = {"arguments": TRAINING["arguments"] | {"max_steps": 12}, "model": {"torch_dtype": "float32"}}
"""Without anything that is drawn, and in numbers that show what is not the same."""


WAITS = """
import pathlib, subprocess, sys, time
from tuning.training import distributed
peer = subprocess.Popen([sys.executable, "-c", "raise SystemExit(20)"])
distributed._Watch([peer], pathlib.Path(sys.argv[1]), patience=0.2)
time.sleep(50)
"""


def adapter(world):
    return safetensors.torch.load_file(world.results / "adapter_model.safetensors")


def others(running):
    """Process ids of those that process 0 has started."""
    found = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
    return [int(pid) for pid in found if b"tuning.training.distributed" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def until_training(running):
    for line in running.stdout:
        if '"step"' in line:
            return
    raise AssertionError(running.communicate()[1])


@pytest.fixture(scope="module")
def alone(tmp_path_factory, models):
    world = World(tmp_path_factory.mktemp("alone"), models)
    return world, world.run(seconds=0, training=SURE, method="lora")


@pytest.mark.parametrize("processes", [2, 3])
def test_so_many_processes_learn_what_one_learns(tmp_path, models, alone, processes):
    """Steps of four rows are divided among three as well."""
    world = World(tmp_path, models)
    done = world.run(seconds=0, training=SURE, method="lora", processes=processes)
    assert done.code == Exit.DONE, done.err
    assert f"{processes} processes train together" in done.err
    ours, theirs = adapter(world), adapter(alone[0])
    assert all((ours[name].float() - theirs[name].float()).abs().max() < 1e-3 for name in theirs)
    assert max(tensor.float().abs().max() for tensor in ours.values()) > 0.01
    losses = [[line.loss for line in run.lines if line.phase == "train" and line.loss] for run in (done, alone[1])]
    assert losses[0][-1] == pytest.approx(losses[1][-1], abs=1e-3)


def test_a_run_of_two_that_was_asked_to_go_goes_on_bit_for_bit(tmp_path, models):
    calm, cut = World(tmp_path / "calm", models), World(tmp_path / "cut", models)
    assert calm.run(seconds=0, processes=2).code == Exit.DONE
    running = cut.start(seconds=1000, processes=2)
    until_training(running)
    running.send_signal(signal.SIGTERM)
    evicted = cut.end(running)
    assert evicted.code == Exit.EVICTED, evicted.err
    (step,) = cut.steps()
    assert 0 < step < STEPS
    done = cut.run(seconds=1000, processes=2)
    assert done.code == Exit.DONE, done.err
    assert f"training goes on after step {step}" in done.err
    assert cut.made() == calm.made(), "with dropout, which each process draws for itself"


def test_one_that_is_killed_ends_the_run_with_its_reason_and_nothing_is_left(tmp_path, models):
    world = World(tmp_path, models)
    running = world.start(seconds=0, processes=3)
    until_training(running)
    there = others(running)
    assert len(there) == 2
    os.kill(there[1], signal.SIGKILL)
    ended = world.end(running)
    assert ended.code == Exit.UNEXPECTED, ended.err
    assert ended.left.message.startswith("the process of GPU 2 died without a word (signal 9)")
    assert ended.left.retryable
    assert not any(Path(f"/proc/{pid}").exists() for pid in there)


def together(module, folder, *each):
    """What so many processes say, with these words of its own for each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", f"tests.tuning.training.{module}", folder]
    running = [
        subprocess.Popen(
            [*map(str, (*command, rank, len(each), port, *words))],
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank, words in enumerate(each)
    ]
    return [json.loads(one.communicate(timeout=200)[0].splitlines()[-1]) for one in running]


def several(folder, *holds):
    """Losses, tokens at once and loss held out of so many processes, and what they have learned; 0 holds anything."""
    import torch

    said = together("one_of_several", folder, *((each,) for each in holds))
    learned = [torch.load(folder / f"learned-{rank}.pt") for rank in range(len(holds))]
    assert all(torch.equal(each, learned[0]) for each in learned)
    return said, learned[0]


def test_all_compute_as_the_first_process_settled_on(tmp_path):
    first, other = together("of_two_minds", tmp_path, (), ())
    assert first == other
    assert (first["packing"], first["checkpointing"]) == (True, False)


def test_gpus_that_differ_are_told(tmp_path):
    from tuning.training import work

    todo = work.Work(tuning_config("r.example/a:1", ["https://example.com/a"]), tmp_path, 0, [], [], None, "float16")
    with pytest.raises(
        errors.NodeTrouble, match=r"GPUs of this node differ: the first computes in float16, another in"
    ):
        todo.load()


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    return several(tmp_path_factory.mktemp("one"), 0)


@pytest.mark.parametrize(
    ("holds", "evaluates"), [pytest.param(150, True, id="trains-in-less"), pytest.param(100, False, id="and-no-more")]
)
def test_what_one_gpu_cannot_hold_all_take_again_in_less_and_learn_the_same(tmp_path, one, holds, evaluates):
    """Rows held out are looked at 128 tokens at a time: where one GPU cannot, none waits for it."""
    ((losses, tokens, held_out),), learned = one
    said, same = several(tmp_path, 0, holds)
    assert said[0] == said[1], "each has the loss of all rows, and computes as the others"
    assert said[0][1] < tokens
    assert said[0][0] == pytest.approx(losses, rel=1e-4)
    assert said[0][2] == (pytest.approx(held_out, rel=1e-4) if evaluates else None)
    assert (same - learned).norm() < 1e-4 * learned.norm()
    assert len(losses) == 3, "of 8, 8 and 1 rows, of which the second process had 4, 4 and none"


def test_processes_that_were_not_there_before_draw_numbers_of_their_own(tmp_path):
    """A run that had one GPU goes on with three."""
    import torch

    from tests.tuning.training import test_loop as steps
    from tuning.training import loop, train, world

    model, settings, drawn = steps.tiny_model(), TrainingConfig(), []
    for rank in range(3):
        setup = loop.Setup(
            settings, Batches(0, None), steps.settled(), Eviction(), None, Curve(), world.World(rank, size=3)
        )
        args = train.arguments(model, settings, tmp_path, {})
        made = loop.Trainer(setup, model=model, args=args, train_dataset=steps.ROWS)
        if rank == 0:
            made._save_rng_state(tmp_path)
        made._load_rng_state(str(tmp_path))
        drawn.append(torch.rand(4).tolist())
    assert drawn[0] != drawn[1] != drawn[2] != drawn[0]


def dead(code, rank, folder, message=""):
    """A process that ended so, with its last words."""
    if message:
        failure = {"reason": "OutOfMemory", "message": message, "retryable": False}
        (folder / f"failure-{rank}.json").write_text(json.dumps(failure))
    done = subprocess.Popen([sys.executable, "-c", f"raise SystemExit({code})"])
    done.wait()
    return done


def test_the_reason_of_who_died_first_is_the_run_s(tmp_path):
    from tuning.training import distributed

    lost, broken = RuntimeError("Connection closed by peer [127.0.0.1]"), ValueError("a bug")
    watch = distributed._Watch([dead(3, 1, tmp_path), dead(20, 2, tmp_path, "no room")], tmp_path, patience=60)
    known = watch.cause(lost)
    assert (known.code, known.reason()) == (Exit.DOES_NOT_FIT, "OutOfMemory")
    assert str(known) == "no room (the process of GPU 2)"
    own = errors.LossDiverged("it did")
    assert watch.cause(own) is own
    watch.close()
    watch = distributed._Watch([dead(3, 1, tmp_path)], tmp_path, patience=0.2)
    assert isinstance(watch.cause(lost), errors.NodeTrouble)
    assert watch.cause(broken) is broken
    watch.close()


def test_who_waits_for_the_dead_where_nothing_wakes_it_is_ended(tmp_path):
    there = [sys.executable, "-c", WAITS, str(tmp_path)]
    dead(20, 1, tmp_path, "no room")
    ended = subprocess.run(
        there, cwd=ROOT, env=os.environ | {"TERMINATION_LOG": str(tmp_path / "last")}, timeout=60, check=False
    )
    assert ended.returncode == Exit.DOES_NOT_FIT
    assert json.loads((tmp_path / "last").read_text())["message"] == "no room (the process of GPU 1)"


def test_those_that_nobody_waits_for_any_more_end_too(tmp_path, models):
    world = World(tmp_path, models)
    running = world.start(seconds=0, processes=2)
    until_training(running)
    (other,) = others(running)
    running.kill()
    running.communicate()
    end = time.monotonic() + 30
    while Path(f"/proc/{other}").exists() and time.monotonic() < end:
        time.sleep(0.1)
    assert not Path(f"/proc/{other}").exists()
