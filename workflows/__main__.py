"""The command line: `kaito-hera watch` is the operator, the rest is for people and for make.

kaito-hera plan FILE       what would happen, on which nodes, what it costs, what is wrong; needs no cluster
kaito-hera presets [NAME]  the models that are known; one in full
kaito-hera sizes           the GPU sizes; those that a model fits
kaito-hera render FILE     print the Workflow that a Workspace becomes
kaito-hera crd             print the CustomResourceDefinition
kaito-hera show NAME       how a Workspace is doing: steps, training, nodes, cost (-w: until it is settled)
kaito-hera loss NAME       the loss of a tuning run, as a curve (-f: while it runs; or an adapter's folder or image)
kaito-hera watch           run the operator
kaito-hera model push      make an image of a model's files, for clusters that cannot or may not ask the hub
kaito-hera release         give back what $WORKSPACE (JSON) holds: what a Job runs when Argo does not
"""

import argparse
import datetime
import logging
import os
import shutil
import sys
import time
from pathlib import Path

import pydantic

from artifacts.weights.errors import WeightsError
from kaito_hera import crd, errors, reference, settings, show, status
from kaito_hera.api import Workspace
from workflows.commands import loss, model, plan, presets, printing, render, sizes
from workflows.outlook.documents import UnreadableError

_USAGE = 2
"""Exit code for what cannot be read, as argparse has it."""

# What talks to a cluster is imported where it is used: rendering shall be quick.


def main() -> None:
    """Parse the command line and run one command."""
    printing.prepare()
    try:
        _run()
    except BrokenPipeError:  # of `| head`
        printing.stop()
    except OSError as error:  # a full disk
        printing.stop()
        sys.exit(f"kaito-hera: {error}")


def _run() -> None:
    try:
        arguments = _parser().parse_args()
        arguments.run(arguments)
    except UnreadableError as error:
        print(f"kaito-hera: {error}", file=sys.stderr)
        sys.exit(_USAGE)
    except errors.KaitoError as error:
        sys.exit(f"{error.reason}: {error}")
    except WeightsError as error:
        sys.exit(f"{error.reason}: {error}")
    except ImportError as error:
        sys.exit(f"kaito-hera needs its operator's packages: pip install 'kaito-hera[operator]' ({error})")
    finally:
        sys.stdout.flush()


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(prog="kaito-hera", description=__doc__, formatter_class=raw)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for module in (plan, presets, sizes, render):
        module.add_to(commands)
    command = commands.add_parser("crd", help="print the CustomResourceDefinition")
    command.add_argument("--reference", action="store_true", help="as a page for people")
    command.set_defaults(run=_crd)
    command = commands.add_parser("show", help="how a Workspace is doing")
    command.add_argument("name", help="of a Workspace")
    command.add_argument("-n", "--namespace", default="default", help="of the Workspace (default: default)")
    command.add_argument("-w", "--watch", action="store_true", help="go on until the Workspace is settled")
    command.set_defaults(run=_show)
    command = commands.add_parser("watch", help="run the operator")
    command.add_argument("--settings", type=Path, default=settings.FOLDER, help="a folder with a file per setting")
    command.add_argument("--health-port", type=int, default=8080)
    command.set_defaults(run=_watch)
    command = commands.add_parser("release", help="give back what the Workspace in $WORKSPACE holds")
    command.set_defaults(run=_release)
    model.add_to(commands)
    loss.add_to(commands)
    return parser


def _crd(arguments: argparse.Namespace) -> None:
    if arguments.reference:
        print(reference.markdown(), end="")
    else:
        printing.manifest(crd.manifest())


def _show(arguments: argparse.Namespace) -> None:
    """Print it; with --watch go on until nothing is under way: in place on a terminal, else what changes."""
    from kaito_hera import cluster  # noqa: PLC0415
    from workflows.commands import standing  # noqa: PLC0415

    connection = cluster.Cluster.connect()
    losses: list[float] = []
    before: list[show.Line] = []
    while True:
        found = standing.workspace(connection, arguments.name, arguments.namespace)
        seen = status.Status.of(found)
        if seen.tuning and seen.tuning.loss is not None and [seen.tuning.loss] != losses[-1:]:
            losses.append(seen.tuning.loss)
        lines = show.lines(found, datetime.datetime.now(datetime.UTC), tuple(losses))
        _tell(lines, before)
        if not arguments.watch or seen.is_settled(found["metadata"]["generation"]):
            return
        before = lines
        time.sleep(1.0)


def _tell(lines: list[show.Line], before: list[show.Line]) -> None:
    if sys.stdout.isatty():
        print(show.redrawn(lines, before, shutil.get_terminal_size().columns), flush=True)
    elif news := show.news(lines, before):
        print("\n".join(news), flush=True)


def _watch(arguments: argparse.Namespace) -> None:
    from kaito_hera import cluster, watcher  # noqa: PLC0415
    from workflows.plan import plan  # noqa: PLC0415

    logging.basicConfig(level=os.environ.get("LOG_LEVEL", "INFO"), format="%(asctime)s %(levelname)s %(message)s")
    try:
        chosen = settings.Settings.load(arguments.settings)
    except OSError as cause:
        raise errors.ConfigInvalidError(f"settings in {arguments.settings}: {cause}") from cause
    except pydantic.ValidationError as cause:
        raise errors.ConfigInvalidError(f"{arguments.settings}: {settings.problem(cause)}") from cause
    # Not sys.exit: whatever a worker is in the middle of must not go on.
    os._exit(watcher.run(cluster.Cluster.connect(), chosen, plan, health_port=arguments.health_port))


def _release(arguments: argparse.Namespace) -> None:
    from kaito_hera.run import Run  # noqa: PLC0415
    from workflows import steps  # noqa: PLC0415

    del arguments
    try:
        workspace = Workspace.model_validate_json(os.environ["WORKSPACE"])
        chosen = settings.Settings.model_validate_json(os.environ["SETTINGS"])
    except KeyError as cause:
        hint = "a Job of the operator's sets it; to give back what a Workspace holds, delete the Workspace"
        raise UnreadableError(f"${cause.args[0]} is not set: {hint}") from cause
    except pydantic.ValidationError as cause:
        raise UnreadableError(f"${cause.title.upper()}: {printing.first(cause)}") from cause
    steps.give_back(Run.open(workspace, chosen))


if __name__ == "__main__":
    main()
