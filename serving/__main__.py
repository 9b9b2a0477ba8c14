"""The command line.

python -m serving CONFIG            serve, on port 5000, until SIGTERM
python -m serving --check CONFIG    see in seconds whether the model and the adapters can be had; no torch, no ray
"""

import argparse
import importlib
import os
import sys
from pathlib import Path


def main() -> int:
    """Run; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m serving", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--check", action="store_true", help="check and end")
    parser.add_argument("config", type=Path, help="a ServingConfig as JSON; adapters.json lies beside it")
    arguments = parser.parse_args()
    if arguments.check:
        code = importlib.import_module("serving.check").check(arguments.config)
        sys.stdout.flush()
        os._exit(code)  # threads of a check may still wait for a dead host
    return int(importlib.import_module("serving.driver").serve(arguments.config))


if __name__ == "__main__":
    sys.exit(main())
