"""Runs of the tiny model that are killed at any moment, inside saves and steps, or evicted: `make chaos-tuning`.

Adapter and losses must be, bit for bit, those of a run that nobody disturbed, and no more than what was done since a
checkpoint was due may be repeated: what that was is counted by the step at the moment of the kill. Checkpoints are on
the output's volume and in its registry in turn, and rows held out are looked at in every other Workspace.
"""

import argparse
import itertools
import json
import random
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from tests.bench import repeated
from tests.tuning import servers, tiny
from tests.tuning.worlds import TRAINING, RegistryWorld, World
from tuning.config import Exit, Progress

OFTEN = 0.05
_FIRST = 1.2
"""Seconds of training within which a kill comes."""
_LOOKS = {
    "arguments": {**TRAINING["arguments"], "eval_strategy": "steps", "eval_steps": 6, "load_best_model_at_end": True},
    "dataset": {"train_test_split": 0.8},
    "lora": TRAINING["lora"],
}


class Kind(NamedTuple):
    """Of Workspaces."""

    volume: bool
    looks: bool

    def __str__(self) -> str:
        return f"{'volume' if self.volume else 'registry'}{', rows held out' if self.looks else ''}"

    @property
    def training(self) -> dict[str, Any]:
        return _LOOKS if self.looks else TRAINING


KINDS = [Kind(*each) for each in itertools.product((True, False), repeat=2)]


class Chaos:
    """Kills so far, and what came of them."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.drawn = random.Random(seed)
        self.kills = self.evictions = self.inside_saves = self.runs = self.equal = 0
        self.found: list[repeated.Repeated] = []
        self.pushed = 0.0
        """Seconds, the longest that a copy took."""
        tiny.publish(folder / "hub" / "tiny" / "phi", steps=0)
        self.hub = servers.Hub(folder / "hub")
        self.registry = servers.Registry(_new(folder / "registry"), password=True, deletes=True)
        self.want = {kind: self._calm(kind) for kind in KINDS}

    def _calm(self, kind: Kind) -> Any:
        world = self._world(f"calm-{KINDS.index(kind)}", kind)
        done = world.run(seconds=0, training=kind.training)
        assert done.code == Exit.DONE, done.err
        return world.made()

    def _world(self, name: str, kind: Kind) -> World:
        """Another Workspace."""
        at = self.folder / name
        return World(at, self.hub) if kind.volume else RegistryWorld(at, self.hub, self.registry, f"team/{name}")

    def one(self, most: int) -> None:
        """A Workspace whose runs are cut off until one gets through, `most` times at most."""
        kind = KINDS[self.runs % len(KINDS)]
        self.runs += 1
        world = self._world(f"w{self.runs}", kind)
        for _ in range(self.drawn.randint(1, most)):
            port = servers.free_port()
            running = world.start(seconds=OFTEN, training=kind.training, metrics_port=port)
            if not self._cut_off(world, running, port):
                break
        else:
            running = world.start(seconds=OFTEN, training=kind.training)
        done = world.end(running)
        assert done.code == Exit.DONE, done.err
        made, want = world.made(), self.want[kind]
        if made != want:
            print(f"wanted {want}\n   got {made}", flush=True)
        self.equal += made == want
        told = "equal" if made == want else "NOT EQUAL"
        print(f"{kind}: {world.attempts} attempts, {told}; {self.kills} kills", flush=True)

    def _cut_off(self, world: World, running: subprocess.Popen[str], port: int) -> bool:
        """Kill or evict it somewhere in its training; False where it came to its end before that."""
        before = max(world.steps(), default=0)
        for line in running.stdout or ():
            if (progress := Progress.parse(line.strip())) and progress.phase == "train":
                break
        in_save, evicts = self.drawn.random() < 0.4, self.drawn.random() < 0.2
        with repeated.watched(port) as watch:
            until = time.monotonic() + self.drawn.uniform(0, _FIRST)
            while running.poll() is None and (time.monotonic() < until or (in_save and not world.saving())):
                if time.monotonic() > until + 3:
                    break
                time.sleep(0.001)
            if running.poll() is not None:
                return False
            time.sleep(self.drawn.uniform(0, 0.02))
            running.send_signal(signal.SIGTERM if evicts else signal.SIGKILL)
            killed, saving = time.time(), world.saving()
        _, err = running.communicate()
        if running.returncode not in (Exit.EVICTED, -signal.SIGKILL):
            raise RuntimeError(f"it ended with {running.returncode}: {err}")
        self.kills += 1
        self.evictions += evicts
        self.inside_saves += saving and not evicts
        self._count(world, err, watch, before=before, killed=killed, evicts=evicts)
        return True

    def _count(
        self, world: World, err: str, watch: repeated.Watch, *, before: int, killed: float, evicts: bool
    ) -> None:
        log = repeated.Log(err, copied=isinstance(world, RegistryWorld), asked=OFTEN, pushed=self.pushed)
        self.pushed = max(self.pushed, log.push)
        there = max(world.steps(), default=0)
        self.found.append(repeated.since(log, watch, there=there, before=before, killed=killed, evicted=evicts))
        print(f"  {self.found[-1]}", flush=True)


def _new(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=7)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        chaos = Chaos(Path(folder), asked.seed)
        while chaos.kills < asked.kills:
            chaos.one(most=4)
        chaos.registry.close()
        chaos.hub.close()
    figures = {name: getattr(chaos, name) for name in ("kills", "evictions", "inside_saves", "runs", "equal")}
    figures |= repeated.figures(chaos.found)
    print(json.dumps(figures))
    raise SystemExit(chaos.equal != chaos.runs or bool(figures["beyond_the_interval"]))


if __name__ == "__main__":
    main()
