"""Which commits model and data are, from step to step and from attempt to attempt, where nobody pins them."""

import json
from typing import Any

from kaito_hera.api import Workspace
from kaito_hera.status import DataStatus, ModelStatus
from workflows.asks import models


def known(workspace: Workspace, model: ModelStatus | None, data: DataStatus | None = None) -> dict[str, Any]:
    """Further arguments of preflight: what an earlier attempt found."""
    found = {"pinned": model.revision} if model and models.floats(workspace) else {}
    if data and (urls := _sets(workspace)):
        commits = {each.source: each.revision for each in data.sets}
        found["commits"] = json.dumps([commits.get(url, "") for url in urls])
    return found


def found(workspace: Workspace, checked: Any) -> dict[str, Any]:
    """Further arguments of the steps after `checked`, which is preflight: what it found."""
    names = [*(["pinned"] if models.floats(workspace) else []), *(["commits"] if _sets(workspace) else [])]
    return {name: checked.get_parameter(name) for name in names}


def _sets(workspace: Workspace) -> list[str]:
    """All addresses, in order, if one may be a whole data set's: which of them are, only the image knows."""
    urls = sorted(workspace.tuning.input.urls) if workspace.tuning else []
    return urls if any("/datasets/" in url and "/resolve/" not in url for url in urls) else []
