"""Runs of the tiny model that are killed at any moment, inside saves and steps, or evicted: `make chaos-tuning`.

Adapter and losses must be, bit for bit, those of a run that nobody disturbed, and no more than the steps since the last
checkpoint may be repeated. With checkpoints on the output's volume and in its registry in turn.
"""

import argparse
import json
import random
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.tuning import servers, tiny
from tests.tuning.worlds import RegistryWorld, World
from tuning.config import Exit, Progress

OFTEN = 0.05
_FIRST = 1.2
"""Seconds of training within which a kill comes."""


class Chaos:
    """Kills so far, and what came of them."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.drawn = random.Random(seed)
        self.kills = self.evictions = self.inside_saves = self.runs = self.equal = 0
        self.repeated = 0.0
        """Of the longest time between two checkpoints, the most that a kill came after the last one."""
        tiny.publish(folder / "hub" / "tiny" / "phi", steps=0)
        self.hub = servers.Hub(folder / "hub")
        self.registry = servers.Registry(_new(folder / "registry"), password=True, deletes=True)

    def world(self, name: str, *, volume: bool) -> World:
        """Another Workspace."""
        at = self.folder / name
        return World(at, self.hub) if volume else RegistryWorld(at, self.hub, self.registry, f"team/{name}")

    def one(self, want: dict[bool, Any], most: int, *, volume: bool) -> None:
        """A Workspace whose runs are cut off until one gets through, `most` times at most."""
        self.runs += 1
        world = self.world(f"w{self.runs}", volume=volume)
        for _ in range(self.drawn.randint(1, most)):
            running = world.start(seconds=OFTEN)
            if not self._cut_off(world, running):
                break
        else:
            running = world.start(seconds=OFTEN)
        done = world.end(running)
        assert done.code == Exit.DONE, done.err
        made = world.made()
        same = made == want[volume]
        if not same:
            print(f"wanted {want[volume]}\n   got {made}", flush=True)
        self.equal += same
        told = "volume" if volume else "registry"
        print(f"{told}: {world.attempts} attempts, {'equal' if same else 'NOT EQUAL'}; {self.kills} kills", flush=True)

    def _cut_off(self, world: World, running: subprocess.Popen[str]) -> bool:
        """Kill or evict it somewhere in its training; False where it came to its end before that."""
        for line in running.stdout or ():
            if (progress := Progress.parse(line.strip())) and progress.phase == "train":
                break
        in_save, evicts = self.drawn.random() < 0.4, self.drawn.random() < 0.2
        gaps = _Gaps(world)
        until = time.monotonic() + self.drawn.uniform(0, _FIRST)
        while running.poll() is None and (time.monotonic() < until or (in_save and not world.saving())):
            gaps.look()
            if time.monotonic() > until + 3:
                break
        if running.poll() is not None:
            return False
        time.sleep(self.drawn.uniform(0, 0.02))
        running.send_signal(signal.SIGTERM if evicts else signal.SIGKILL)
        saving = world.saving()
        running.communicate()
        if running.returncode not in (Exit.EVICTED, -signal.SIGKILL):
            raise RuntimeError(f"it ended with {running.returncode}")
        self.kills += 1
        self.evictions += evicts
        self.inside_saves += saving and not evicts
        if not evicts:
            self.repeated = max(self.repeated, gaps.share())
        return True


class _Gaps:
    """Times between checkpoints, as seen from outside."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._newest, self._at, self._longest = self._step(), time.monotonic(), 0.0
        self._seen = False

    def _step(self) -> int:
        return max(self._world.steps(), default=0)

    def look(self) -> None:
        now = time.monotonic()
        if (newest := self._step()) != self._newest:
            self._longest = max(self._longest, now - self._at)
            self._newest, self._at, self._seen = newest, now, True

    def share(self) -> float:
        """The time since the last one, of the longest between two; 0 where none were seen."""
        return (time.monotonic() - self._at) / self._longest if self._seen and self._longest else 0.0


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
        want = {}
        for volume in (True, False):
            calm = chaos.world(f"calm-{'volume' if volume else 'registry'}", volume=volume)
            done = calm.run(seconds=0)
            assert done.code == Exit.DONE, done.err
            want[volume] = calm.made()
        while chaos.kills < asked.kills:
            chaos.one(want, most=4, volume=chaos.runs % 2 == 0)
        chaos.registry.close()
    figures = {name: getattr(chaos, name) for name in ("kills", "evictions", "inside_saves", "runs", "equal")}
    print(json.dumps(figures | {"most_repeated_intervals": round(chaos.repeated, 2)}))
    raise SystemExit(chaos.equal != chaos.runs)


if __name__ == "__main__":
    main()
