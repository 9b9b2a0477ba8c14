"""`python -m tests.cluster.simulators.hub`: see the package."""

import argparse
from pathlib import Path

from tests.cluster.simulators import hub, web
from tests.cluster.simulators.hub import repositories, routes


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.cluster.simulators.hub",
        description=hub.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--listen", type=web.address, required=True, metavar="IP:PORT")
    parser.add_argument("--cert", type=Path, required=True, metavar="FILE")
    parser.add_argument("--key", type=Path, required=True, metavar="FILE")
    parser.add_argument("--content", type=Path, required=True, metavar="DIR")
    parser.add_argument("--gated", action="append", default=[], metavar="ID")
    parser.add_argument("--token", action="append", default=[], metavar="TOKEN")
    parser.add_argument("--cdn", default="", metavar="HOST")
    asked = parser.parse_args()
    known = repositories.load(asked.content)
    simulated = routes.Hub(known, frozenset(asked.gated), frozenset(asked.token), asked.cdn)
    web.run(asked.listen, asked.cert, asked.key, handle=simulated.handle)


if __name__ == "__main__":
    main()
