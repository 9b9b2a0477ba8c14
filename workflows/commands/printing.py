"""What the commands that print tables share: their options, and the same as JSON or YAML."""

import argparse
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pydantic
import yaml

import presets
from workflows.outlook import Part


def add_arguments(command: argparse.ArgumentParser) -> None:
    """`--region` and `-o`."""
    prices = "Azure region whose prices are shown (default: plan takes that of the settings; else the cheapest)"
    command.add_argument("--region", type=_region, help=prices)
    command.add_argument("-o", "--output", choices=["text", "json", "yaml"], default="text", help="default: text")


def _region(name: str) -> str:
    try:
        return presets.region(name)
    except presets.UnknownNameError as cause:
        raise argparse.ArgumentTypeError(str(cause)) from cause


def show(body: Part, lines: Sequence[str], output: str) -> None:
    """On stdout: the structure as JSON or YAML, or the lines for people."""
    if output == "json":
        text = body.model_dump_json(by_alias=True, indent=2) + "\n"
    elif output == "yaml":
        text = yaml.safe_dump(
            body.model_dump(by_alias=True, mode="json"), sort_keys=False, width=120, allow_unicode=True
        )
    else:
        text = "\n".join(lines) + "\n"
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        stop()


def manifest(obj: object) -> None:
    """On stdout, as YAML that kubectl takes."""
    print(yaml.safe_dump(obj, sort_keys=False, width=120, allow_unicode=True), end="")


def first(cause: pydantic.ValidationError) -> str:
    """The first thing that is wrong."""
    wrong = cause.errors()[0]
    return f"{'.'.join(map(str, wrong['loc']))}: {wrong['msg']} (seen: {wrong['input']!r})".removeprefix(": ")


def prepare() -> None:
    """Print anywhere: without a stdout, and in letters that have no bars and no ticks."""
    if sys.stdout is None:
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 (for as long as the process runs)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def stop() -> None:
    """Print no more: whoever read has seen enough, and the interpreter's last flush may not complain either."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
