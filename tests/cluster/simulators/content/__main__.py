"""`python -m tests.cluster.simulators.content DIR`: DIR becomes a link to the content."""

import argparse
import os
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # read when torch is loaded; more threads make tiny models ten times slower


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.simulators.content", description=__doc__)
    parser.add_argument("folder", type=Path, metavar="DIR")
    folder = parser.parse_args().folder
    if folder.exists() and not folder.is_symlink():
        parser.error(f"{folder} is there and is no link: name a path that does not exist, or remove it")

    from tests.cluster.simulators.content import cache

    content = cache.ensure(lambda line: print(line, flush=True))
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = folder.with_name(f".{folder.name}.{os.getpid()}")
    fresh.symlink_to(content)
    fresh.replace(folder)


if __name__ == "__main__":
    main()
