"""Tune: check, get GPU nodes, wait for them, train in the user's namespace; serve the result or give the nodes back."""

from typing import Any

from hera.workflows import Steps, Workflow

from kaito_hera import intent
from kaito_hera.api import Workspace
from kaito_hera.intent import Parts
from kaito_hera.settings import Settings
from kaito_hera.status import DataStatus, ModelStatus, NodesStatus
from workflows import pins, place, steps, template


def tune(
    workspace: Workspace,
    settings: Settings,
    *,
    attempt: int,
    parts: Parts,
    nodes: NodesStatus | None = None,
    model: ModelStatus | None = None,
    data: DataStatus | None = None,
) -> dict[str, Any]:
    """The Workflow of one attempt. Where nothing is to be served, no node is asked for if the adapter is there.

    What is trained onto a volume is pushed after the nodes are given back. Where they are to serve it they wait for
    that, though not long: then the attempt ends before it serves, and the next ones push and serve.
    `nodes`, `model` and `data` are what status says of them.
    """

    def fill(workflow: Workflow) -> None:
        asked = template.asked(workflow)
        with Steps(name=template.ENTRYPOINT):
            checked = steps.preflight(arguments=asked | pins.known(workspace, model, data))
            found = checked.get_parameter("adapter")
            needed = None if workspace.serves else f"'{found}' == ''"
            asked = place.place(asked, settings, parts, choice=place.choice(workspace, checked, nodes), when=needed)
            asked |= pins.found(workspace, checked)
            trained = steps.train(arguments=asked | {"adapter": found}, when=needed)
            made, pushed = {"adapter": trained.get_parameter("adapter")}, None
            if not workspace.serves:
                steps.release(arguments=template.asked(workflow))
            if intent.scratch(workspace, settings):
                hurried = {"hurried": True} if workspace.serves else {}
                done = steps.push(arguments=template.asked(workflow) | made | hurried, when=needed)
                made = {"adapter": done.get_parameter("adapter")}
                pushed = f"'{made['adapter']}' != ''"
            if workspace.serves:
                steps.roll_out(arguments=asked | made, when=pushed)

    return template.build("tune", workspace, settings, attempt=attempt, fill=fill)
