"""The command line: `kaito-hera watch` is the operator, the rest is for people and for make.

kaito-hera render FILE     print the Workflow that a Workspace becomes
kaito-hera crd             print the CustomResourceDefinition
kaito-hera watch           run the operator
kaito-hera release         give back what WORKSPACE (JSON in the environment) holds; what a Job runs when Argo does not
"""

import argparse
import logging
import os
import sys
from pathlib import Path

import pydantic
import yaml

from kaito_hera import crd, decide, errors, live, settings, status
from kaito_hera.api import Workspace


def main() -> None:
    """Parse the command line and run one command."""
    parser = argparse.ArgumentParser(
        prog="kaito-hera", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    render = commands.add_parser("render", help="print the Workflow that a Workspace becomes")
    render.add_argument("file", type=Path, help="a Workspace manifest")
    render.add_argument("--settings", type=Path, help="a folder with a file per setting (default: all defaults)")
    commands.add_parser("crd", help="print the CustomResourceDefinition")
    commands.add_parser("watch", help="run the operator")
    commands.add_parser("release", help="give back what the Workspace in $WORKSPACE holds")
    arguments = parser.parse_args()
    try:
        match arguments.command:
            case "render":
                print(_render(arguments.file, arguments.settings), end="")
            case "crd":
                print(_yaml(crd.manifest()), end="")
            case "watch":
                _watch()
            case "release":
                _release()
    except errors.KaitoError as error:
        sys.exit(f"{error.reason}: {error}")


def _render(file: Path, folder: Path | None) -> str:
    """The Workflow of the first attempt, as YAML; raises InvalidWorkspaceError."""
    from workflows.plan import plan  # noqa: PLC0415 - Hera changes how the whole process writes YAML

    try:
        workspace = Workspace.parse(yaml.safe_load(file.read_text(encoding="utf-8")))
        chosen = settings.Settings.load(folder) if folder else settings.Settings()
    except (OSError, yaml.YAMLError) as cause:
        raise errors.InvalidWorkspaceError(f"{file}: {cause}") from cause
    except pydantic.ValidationError as cause:
        first = cause.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise errors.InvalidWorkspaceError(f"{file}: {field}: {first['msg']} (seen: {first['input']!r})") from cause
    seen = live.Live(now=status.moment("1970-01-01T00:00:00Z"))
    return _yaml(plan(workspace, chosen, attempt=1, parts=decide.missing(workspace, status.Status(), seen)))


def _yaml(obj: object) -> str:
    return yaml.safe_dump(obj, sort_keys=False, width=120, allow_unicode=True)


def _watch() -> None:
    from kaito_hera import cluster, watcher  # noqa: PLC0415 - rendering needs no cluster
    from workflows.plan import plan  # noqa: PLC0415

    logging.basicConfig(level=os.environ.get("LOG_LEVEL", "INFO"), format="%(asctime)s %(levelname)s %(message)s")
    watcher.run(cluster.Cluster.connect(), settings.Settings.load(), plan)
    os._exit(1)  # the lead is lost: whatever a worker is in the middle of must not go on


def _release() -> None:
    from kaito_hera.run import Run  # noqa: PLC0415
    from workflows import steps  # noqa: PLC0415

    workspace = Workspace.model_validate_json(os.environ["WORKSPACE"])
    chosen = settings.Settings.model_validate_json(os.environ["SETTINGS"])
    steps.give_back(Run.open(workspace, chosen))


if __name__ == "__main__":
    main()
