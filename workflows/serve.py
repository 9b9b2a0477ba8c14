"""Serve: check, get GPU nodes, wait for them, roll the server out. What is satisfied already is left out."""

from typing import Any

from hera.workflows import Steps, Workflow

from kaito_hera.api import Workspace
from kaito_hera.intent import Parts
from kaito_hera.settings import Settings
from kaito_hera.status import ModelStatus, NodesStatus
from workflows import pins, place, steps, template


def serve(
    workspace: Workspace,
    settings: Settings,
    *,
    attempt: int,
    parts: Parts,
    adapter: str = "",
    nodes: NodesStatus | None = None,
    model: ModelStatus | None = None,
) -> dict[str, Any]:
    """The Workflow of one attempt; `adapter` is the tuned one, by digest, where there is one.

    `nodes` and `model` are what status says of them.
    """

    def fill(workflow: Workflow) -> None:
        asked = template.asked(workflow)
        tuned = {"adapter": adapter} if adapter else {}
        with Steps(name=template.ENTRYPOINT):
            checked = steps.preflight(arguments=asked | pins.known(workspace, model) | tuned)
            asked = place.place(asked, settings, parts, choice=place.choice(workspace, checked, nodes))
            if parts.serve:
                steps.roll_out(arguments=asked | pins.found(workspace, checked) | {"adapter": adapter})

    return template.build("serve", workspace, settings, attempt=attempt, fill=fill)
