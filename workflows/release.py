"""Release: give the nodes back. For a Workspace that is deleted, or that cannot go on and must not cost any more."""

from typing import Any

from hera.workflows import Steps, Workflow

from kaito_hera.api import Workspace
from kaito_hera.settings import Settings
from workflows import steps, template


def release(workspace: Workspace, settings: Settings, *, attempt: int) -> dict[str, Any]:
    """The Workflow of one attempt."""

    def fill(workflow: Workflow) -> None:
        with Steps(name=template.ENTRYPOINT):
            steps.release(arguments=template.asked(workflow))

    return template.build("release", workspace.identity(), settings, attempt=attempt, fill=fill)
