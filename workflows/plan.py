"""Which Workflow an attempt is. Pure: the same Workspace, parts and attempt give the same manifest."""

from typing import Any

from kaito_hera.api import Workspace
from kaito_hera.intent import Parts
from kaito_hera.settings import Settings
from workflows.release import release
from workflows.serve import serve
from workflows.tune import tune


def plan(workspace: Workspace, settings: Settings, *, attempt: int, parts: Parts, adapter: str = "") -> dict[str, Any]:
    """The manifest for the parts that are not satisfied: tune if there is tuning to do, release if nothing is wanted.

    `adapter` is the tuned adapter by digest, where tuning is done already.
    """
    if parts.tune:
        return tune(workspace, settings, attempt=attempt, parts=parts)
    if parts:
        return serve(workspace, settings, attempt=attempt, parts=parts, adapter=adapter)
    return release(workspace, settings, attempt=attempt)
