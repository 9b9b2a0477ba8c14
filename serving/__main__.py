"""The command line.

python -m serving CONFIG            serve, on port 5000, until SIGTERM: what the pod does, with Ray Serve
python -m serving --fetch CONFIG    fetch the model's files and end: before Ray starts, where several nodes serve
python -m serving --check CONFIG    see in seconds whether the model and the adapters can be had; no torch, no ray
python -m serving MODEL             serve on a laptop: a folder, a preset, or ORGANISATION/NAME[@REVISION] of the hub
"""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path


def main(argv: Sequence[str] | None = None) -> int:
    """Run; the exit code."""
    asked = _parser().parse_args(argv)
    if asked.check:
        code = importlib.import_module("serving.check").check(Path(asked.what))
        sys.stdout.flush()
        os._exit(code)  # threads of a check may still wait for a dead host
    if asked.fetch:
        return int(importlib.import_module("serving.driver").fetch(Path(asked.what)))
    if asked.what.endswith(".json"):
        return int(importlib.import_module("serving.driver").serve(Path(asked.what)))
    laptop = importlib.import_module("serving.laptop")
    return int(
        laptop.serve(laptop.Asked(asked.what, tuple(asked.adapter), asked.host, asked.port, asked.context, asked.dtype))
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m serving", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "what", metavar="CONFIG|MODEL", help="a ServingConfig, NAME.json beside adapters.json; or a model"
    )
    parser.add_argument("--check", action="store_true", help="check the CONFIG and end")
    parser.add_argument("--fetch", action="store_true", help="fetch the CONFIG's model and end")
    laptop = parser.add_argument_group("with a MODEL")
    laptop.add_argument(
        "--adapter",
        action="append",
        default=[],
        metavar="NAME=PATH[:STRENGTH]",
        help="a folder or image with a LoRA adapter, and how much of it (0 to 1); may be repeated",
    )
    laptop.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    laptop.add_argument("--port", type=int, default=5000, help="port to listen on (default: %(default)s)")
    laptop.add_argument("--context", type=int, help="most tokens of prompt and answer together (default: the model's)")
    laptop.add_argument(
        "--dtype",
        default="auto",
        choices=["auto", "bfloat16", "float16", "float32"],
        help="number type of the weights (default: what the hardware computes in)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
