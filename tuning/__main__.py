"""The tuning image's command line: `python -m tuning run | validate | estimate | pull | push`, see `commandline`.

Progress goes to stdout, one JSON object a line after `progress: `; words for people go to stderr; how it ended is the
exit code (`tuning.config.Exit`) and, as JSON, the termination message.
"""

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence

from tuning import commandline, errors
from tuning.config import Exit, Failure, Result
from tuning.eviction import Eviction
from tuning.report import TERMINATION_LOG, leave, log, log_to


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line says; returns the exit code."""
    asked = commandline.parser().parse_args(argv)
    log_to(sys.stderr)
    eviction = Eviction(_go)
    eviction.listen()
    try:
        result = asked.do(asked, eviction)
    except Exception as error:  # noqa: BLE001 -- the one place that turns errors into codes
        known = errors.explain(error)
        log.error("%s: %s", known.reason(), known, exc_info=error if known.code == Exit.UNEXPECTED else None)
        _leave(asked, known.failure())
        return known.code
    if result is not None:
        log.info("%s", result.adapter or "nothing speaks against it")
        _leave(asked, result)
    return Exit.DONE


def _leave(asked: argparse.Namespace, message: Result | Failure) -> None:
    """Only for whoever asked by a CONFIG: a person has read the log's last line."""
    if getattr(asked, "config", None) or TERMINATION_LOG in os.environ:
        leave(message)


def _go(error: errors.Evicted) -> None:
    """End the process now: raised, the error would wait for the threads of a download, longer than the pod has."""
    with contextlib.suppress(RuntimeError):  # stderr may be busy with the line that SIGTERM interrupted
        leave(error.failure())
    os._exit(error.code)


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # threads of a check may still wait for a dead host, and torch takes a second to say goodbye
