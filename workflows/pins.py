"""Which commit or digest a model is, from step to step and from attempt to attempt, where no preset pins it."""

from typing import Any

from kaito_hera.api import Workspace
from kaito_hera.status import ModelStatus
from workflows.asks import models


def known(workspace: Workspace, model: ModelStatus | None) -> dict[str, Any]:
    """Further arguments of preflight: what an earlier attempt found."""
    return {"pinned": model.revision} if model and models.floats(workspace) else {}


def found(workspace: Workspace, checked: Any) -> dict[str, Any]:
    """Further arguments of the steps after `checked`, which is preflight: what it found."""
    return {"pinned": checked.get_parameter("pinned")} if models.floats(workspace) else {}
