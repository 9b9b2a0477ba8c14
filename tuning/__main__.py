"""The tuning image's command line.

    python -m tuning CONFIG            fetch, train and push what CONFIG asks for
    python -m tuning --check CONFIG    see whether that can work, in seconds, without a GPU and without torch

CONFIG is a TuningConfig as JSON. Progress goes to stdout, one JSON object a line after `progress: `; words for people
go to stderr; how it ended is the exit code (`tuning.config.Exit`) and, as JSON, the termination message.
"""

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pydantic

from tuning import check, errors, run
from tuning.config import Exit, Result, TuningConfig
from tuning.eviction import Eviction
from tuning.places import Places
from tuning.report import Report, leave, log, log_to

_PLACES = {
    "scratch": "a writable folder",
    "push_auth": "a .dockerconfigjson to push with; may be missing",
    "pull_auth": "a .dockerconfigjson to pull data with; may be missing",
    "data": "where the input's volume is mounted",
    "results": "where the output's volume is mounted",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line says; returns the exit code."""
    asked = _arguments(argv)
    log_to(sys.stderr)
    eviction = Eviction(_go)
    eviction.listen()
    try:
        result = _do(asked, eviction)
    except Exception as error:  # noqa: BLE001 -- the one place that turns errors into codes
        known = errors.explain(error)
        log.error("%s: %s", known.reason(), known, exc_info=error if known.code == Exit.UNEXPECTED else None)
        leave(known.failure())
        return known.code
    log.info("%s", result.adapter or "nothing speaks against it")
    leave(result)
    return Exit.DONE


def _go(error: errors.Evicted) -> None:
    """End the process now: raised, the error would wait for the threads of a download, longer than the pod has."""
    with contextlib.suppress(RuntimeError):  # stderr may be busy with the line that SIGTERM interrupted
        leave(error.failure())
    os._exit(error.code)


def _do(asked: argparse.Namespace, eviction: Eviction) -> Result:
    config = _config(asked.config)
    places = Places(**{name: getattr(asked, name) for name in _PLACES})
    if asked.check:
        return check.check(config, places)
    return run.Run(config, places, Report(sys.stdout), eviction).go()


def _config(path: Path) -> TuningConfig:
    try:
        return TuningConfig.model_validate_json(path.read_bytes())
    except OSError as error:
        raise errors.ConfigInvalid(f"{path}: {error.strerror}; give the path of a TuningConfig as JSON") from error
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        raise errors.ConfigInvalid(
            f"{path}: {where}: {first['msg']}, found {str(first['input'])[:200]!r}; "
            "operator and image must be of one release"
        ) from error


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tuning", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", type=Path, metavar="CONFIG", help="path of a TuningConfig as JSON")
    parser.add_argument("--check", action="store_true", help="only see whether it can work; needs no torch")
    for name, what in _PLACES.items():
        path = getattr(Places(), name)
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=Path, default=path, help=f"{what} (default: %(default)s)"
        )
    return parser.parse_args(argv)


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # threads of a check may still wait for a dead host, and torch takes a second to say goodbye
