"""Which Workflow an attempt is. Pure: the same Workspace, parts and attempt give the same manifest."""

from typing import Any

from kaito_hera import errors
from kaito_hera.api import Workspace
from kaito_hera.intent import Parts
from kaito_hera.settings import Settings
from kaito_hera.status import DataStatus, ModelStatus, NodesStatus
from workflows.push import push
from workflows.release import release
from workflows.serve import serve
from workflows.tune import tune


def plan(
    workspace: Workspace,
    settings: Settings,
    *,
    attempt: int,
    parts: Parts | None,
    adapter: str = "",
    nodes: NodesStatus | None = None,
    model: ModelStatus | None = None,
    data: DataStatus | None = None,
) -> dict[str, Any]:
    """The manifest for the parts that are not satisfied: tune if there is tuning to do; None gives everything back.

    `adapter` is the tuned adapter by digest, where tuning is done already; `nodes`, `model` and `data` are what status
    says of them.

    Raises InternalError when there is nothing to do: a release takes the server down, so it has to be asked for.
    """
    if parts is None:
        return release(workspace, settings, attempt=attempt)
    if parts.push:
        return push(workspace, settings, attempt=attempt)
    if parts.tune:
        return tune(workspace, settings, attempt=attempt, parts=parts, nodes=nodes, model=model, data=data)
    if parts:
        return serve(workspace, settings, attempt=attempt, parts=parts, adapter=adapter, nodes=nodes, model=model)
    raise errors.InternalError(f"attempt {attempt} of {workspace.key} has nothing to do; please report this")
