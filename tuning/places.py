"""Where things are in the pod: folders and files that the operator mounts, or that a test puts elsewhere."""

import dataclasses
from pathlib import Path

from tuning import config


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
