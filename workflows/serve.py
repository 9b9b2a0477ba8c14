"""Serve: check, get GPU nodes, wait for them, roll the server out. What is satisfied already is left out."""

from typing import Any

from hera.workflows import Steps, Workflow

from kaito_hera.api import Workspace
from kaito_hera.intent import Parts
from kaito_hera.settings import Settings
from kaito_hera.status import NodesStatus
from workflows import place, steps, template


def serve(
    workspace: Workspace,
    settings: Settings,
    *,
    attempt: int,
    parts: Parts,
    adapter: str = "",
    nodes: NodesStatus | None = None,
) -> dict[str, Any]:
    """The Workflow of one attempt; `adapter` is the tuned one, by digest, where there is one.

    `nodes` is what status says of them.
    """

    def fill(workflow: Workflow) -> None:
        asked = template.asked(workflow)
        with Steps(name=template.ENTRYPOINT):
            checked = steps.preflight(arguments=asked)
            asked = place.place(asked, settings, parts, choice=place.choice(workspace, checked, nodes))
            if parts.serve:
                steps.roll_out(arguments=asked | {"adapter": adapter})

    return template.build("serve", workspace, settings, attempt=attempt, fill=fill)
