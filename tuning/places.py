"""Where things are in the pod: folders and files that the operator mounts, or that a test puts elsewhere."""

import contextlib
import dataclasses
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tuning import config
from tuning.output import entries

_PREFIX, _MARK = "tuning-", ".kaito-hera-scratch"


@dataclasses.dataclass(frozen=True)
class Places:
    """Paths of one run or check. Only `scratch` has to be there."""

    scratch: Path = config.SCRATCH
    """A writable folder that dies with the pod."""
    push_auth: Path = config.PUSH_AUTH
    """A `.dockerconfigjson` to push with."""
    pull_auth: Path = config.PULL_AUTH
    """A `.dockerconfigjson` to pull with."""
    data: Path = config.DATA
    """The input's volume."""
    results: Path = config.RESULTS
    """The output's volume."""
    model: Path | None = None
    """The base model's files where they are on disk already; None: to be fetched."""
    models: Path | None = None
    """Where fetched models outlive the run; None: nowhere, they go below `scratch`."""


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A folder of this process alone, below the machine's own for such; those that processes were killed in go first.

    It is locked, then marked: one that has the mark and no lock is of a process that is no more.
    """
    for left in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        _clear(left)
    with tempfile.TemporaryDirectory(prefix=_PREFIX) as made, entries.held(Path(made)) as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        Path(made, _MARK).touch()
        yield Path(made)


def _clear(left: Path) -> None:
    with contextlib.suppress(OSError), entries.held(left) as handle:  # no folder, another's, or of one that lives
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(handle).st_uid == os.getuid() and (left / _MARK).exists():
            entries.remove(left)
