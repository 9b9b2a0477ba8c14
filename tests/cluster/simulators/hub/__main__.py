"""`python -m tests.cluster.simulators.hub`: see the package."""

from pathlib import Path

from tests.cluster.simulators import hub, web
from tests.cluster.simulators.hub import repositories, routes


def main() -> None:
    parser = web.arguments(hub)
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
