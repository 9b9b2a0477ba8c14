"""`kaito-hera model push`: an image of a model's files, for clusters that cannot or may not ask the hub."""

import argparse
from pathlib import Path
from typing import Any


def add_to(commands: Any) -> None:
    """Add `model` with its subcommands."""
    own = commands.add_parser("model", help="models as images").add_subparsers(required=True, metavar="COMMAND")
    said = "make an image of a model's files and push it"
    access = "Pushes with docker's or podman's login; a gated model is read with HF_TOKEN."
    parser = own.add_parser("push", help=said, description=f"{said.capitalize()}. {access}")
    parser.add_argument("id", metavar="ID", help="a preset's name, or ORGANISATION/MODEL of the hub")
    parser.add_argument("image", metavar="IMAGE", help="where to, for example myregistry.azurecr.io/models/phi-3:1")
    parser.add_argument("--revision", help="a commit or branch of the hub (default: the preset's commit, or main)")
    parser.add_argument("--folder", type=Path, help="a folder with the model's files, instead of the hub")
    parser.set_defaults(run=_push)


def _push(arguments: argparse.Namespace) -> None:
    """The image by digest goes to stdout; what is done meanwhile to stderr."""
    from artifacts.weights import push  # noqa: PLC0415 - half a tenth of a second that other commands need not pay

    model = push.model(arguments.id, arguments.revision, local=bool(arguments.folder))
    print(push.push(model, arguments.image, folder=arguments.folder).image)
