"""`kaito-hera render`: the Workflow of a Workspace's first attempt, as the operator would make it."""

import argparse
import contextlib
import datetime
import io
import sys
from pathlib import Path
from typing import Any

import pydantic

from kaito_hera import decide, errors, live, status
from kaito_hera.api import Workspace
from kaito_hera.paper import inert
from kaito_hera.settings import Settings
from workflows.commands import plan, printing
from workflows.outlook import documents


def add_to(commands: Any) -> None:
    """The command and its arguments."""
    command = commands.add_parser("render", help="print the Workflow that a Workspace becomes")
    command.add_argument("file", type=Path, help="a Workspace manifest")
    command.add_argument(
        "--settings", type=Path, metavar="DIR|FILE", help="the operator's settings (default: the defaults)"
    )
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Print it; exits as `plan` does where no model is meant. Raises InvalidWorkspaceError and UnreadableError."""
    from workflows.plan import plan as planned  # noqa: PLC0415 -- hera, which takes a while

    found = documents.read(documents.file(arguments.file), str(arguments.file)).workspaces
    if len(found) != 1:
        raise documents.UnreadableError(f"{arguments.file}: has {len(found)} Workspaces; name a file with one")
    try:
        workspace = Workspace.parse(found[0])
    except pydantic.ValidationError as cause:
        raise errors.InvalidWorkspaceError(f"{arguments.file}: {printing.first(cause)}") from cause
    chosen = documents.settings(arguments.settings) if arguments.settings else Settings()
    _warn(workspace, chosen)
    parts = decide.missing(workspace, status.Status(), live.Live(now=datetime.datetime.now(datetime.UTC)))
    printing.manifest(planned(workspace, chosen, attempt=1, parts=parts))


def _warn(workspace: Workspace, chosen: Settings) -> None:
    """Say what preflight would refuse; what is printed on stdout stays the Workflow alone."""
    from kaito_hera import checks, refusals  # noqa: PLC0415

    found = refusals.findings(workspace, chosen, datetime.datetime.now(datetime.UTC).date())
    if unknown := next((one for one in found if one.error is errors.UnknownPresetError and one.fatal), None):
        print(inert(f"{unknown.reason}: {unknown}"), file=sys.stderr)
        sys.exit(plan.NEVER)
    told = io.StringIO()
    with contextlib.redirect_stdout(told):
        try:
            checks.pass_facts(workspace, chosen)
        except errors.KaitoError as error:
            print(f"warning: {error.reason}: {error}")
    for line in told.getvalue().splitlines():
        print(inert(line), file=sys.stderr)
