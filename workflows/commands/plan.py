"""`kaito-hera plan`: what would happen to the Workspaces of a file, or to one that stands already."""

import argparse
import datetime
import sys
from pathlib import Path
from typing import Any

from kaito_hera.intent import Parts
from kaito_hera.paper import Paper, inert
from kaito_hera.settings import Settings
from workflows.commands import printing
from workflows.outlook import Outlooks, documents, judging, text
from workflows.outlook.documents import Documents, UnreadableError

NEVER = 10
"""Exit code when a Workspace can never work as it is."""


def add_to(commands: Any) -> None:
    """The command and its arguments."""
    command = commands.add_parser("plan", help="what would happen, on which nodes, what it costs, what is wrong")
    command.add_argument("file", help="a file of manifests, or - for stdin; with --live the name of a Workspace")
    command.add_argument("--live", action="store_true", help="read the Workspace and the settings from the cluster")
    command.add_argument("-n", "--namespace", default="default", help="namespace of what names none (default: default)")
    command.add_argument(
        "--config", action="append", default=[], metavar="FILE", help="another file, with ConfigMaps; may be repeated"
    )
    settings = "the operator's settings (default: their ConfigMap, where FILE or the cluster has it)"
    command.add_argument("--settings", type=Path, metavar="DIR|FILE", help=settings)
    printing.add_arguments(command)
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Print the plans; exits with 10 if one can never work. Raises UnreadableError for what cannot be read."""
    plans = _live(arguments) if arguments.live else _of_file(arguments)
    paper = Paper.of(sys.stdout)
    lines = "\n\n".join(text.render(plan, paper) for plan in plans.plans).splitlines()
    printing.show(plans, lines, arguments.output)
    sys.exit(0 if plans.works else NEVER)


def _of_file(arguments: argparse.Namespace) -> Outlooks:
    source = "stdin" if arguments.file == "-" else arguments.file
    body = documents.stream(sys.stdin.buffer) if arguments.file == "-" else documents.file(Path(arguments.file))
    beside = documents.read(body, source, arguments.namespace)
    for path in arguments.config:
        more = documents.read(documents.file(Path(path)), path, arguments.namespace)
        beside = Documents(beside.workspaces, more.config_maps | beside.config_maps, beside.others)
    if not beside.workspaces:
        has = ", ".join([*beside.others, *(f"ConfigMap {name}" for _, name in beside.config_maps)]) or "nothing at all"
        raise UnreadableError(f"{source}: has no Workspace, it has {has}")
    if beside.others:
        print(inert(f"note: {source}: not looked at: {', '.join(beside.others)}"), file=sys.stderr)
    settings = documents.settings(arguments.settings) if arguments.settings else beside.settings()
    return _judged(beside, settings or Settings(), arguments.region)


def _judged(beside: Documents, settings: Settings, region: str | None, parts: Parts | None = None) -> Outlooks:
    where = region or settings.region
    today = datetime.datetime.now(datetime.UTC).date()
    judged = [judging.judge(obj, beside, settings, region=where, on=today, parts=parts) for obj in beside.workspaces]
    return Outlooks(plans=tuple(judged))


def _live(arguments: argparse.Namespace) -> Outlooks:
    from workflows.commands import standing  # noqa: PLC0415 - what talks to a cluster

    beside, settings, parts = standing.read(arguments.file, arguments.namespace)
    chosen = documents.settings(arguments.settings) if arguments.settings else settings
    return _judged(beside, chosen, arguments.region, parts)
