"""The pools on disk: one JSON file each, written whole before anybody is told of a change."""

import contextlib
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.cluster.simulators.azure.pools import Pool


class Store:
    """All pools, in memory and below `folder`; hold `changed` to read or change any."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.changed = threading.Condition(threading.RLock())
        self.pools: dict[str, Pool] = {
            path.stem: Pool.load(json.loads(path.read_text(encoding="utf-8"))) for path in sorted(folder.glob("*.json"))
        }

    @contextlib.contextmanager
    def changing(self, name: str) -> Iterator[Pool]:
        """Change an existing pool; it is on disk, and everybody who waits is woken, when the block ends."""
        with self.changed:
            pool = self.pools[name]
            yield pool
            self.put(pool)

    def put(self, pool: Pool) -> None:
        with self.changed:
            write_json(self._folder / f"{pool.name}.json", pool.dump())
            self.pools[pool.name] = pool
            self.changed.notify_all()

    def living(self) -> list[Pool]:
        with self.changed:
            return sorted((pool for pool in self.pools.values() if not pool.gone), key=lambda pool: pool.name)


def write_json(path: Path, document: Any) -> None:
    """Whole or not at all, also when the power goes."""
    scratch = path.with_name(f".{path.name}.part")
    with scratch.open("w", encoding="utf-8") as file:
        json.dump(document, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    scratch.replace(path)
