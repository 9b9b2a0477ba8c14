"""Push: what was trained and waits on its volume. No node is asked for, and nothing is trained again."""

from typing import Any

from hera.workflows import Steps, Workflow

from kaito_hera.api import Workspace
from kaito_hera.settings import Settings
from workflows import steps, template


def push(workspace: Workspace, settings: Settings, *, attempt: int) -> dict[str, Any]:
    """The Workflow of one attempt; what is to be served is served by the next."""

    def fill(workflow: Workflow) -> None:
        with Steps(name=template.ENTRYPOINT):
            steps.push(arguments=template.asked(workflow))

    return template.build("push", workspace, settings, attempt=attempt, fill=fill)
