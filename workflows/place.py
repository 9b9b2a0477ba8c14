"""Get nodes: ask for them and wait until they are usable. What serving and tuning have in common."""

import json
from typing import Any

from kaito_hera import nodes
from kaito_hera.api import Workspace
from kaito_hera.intent import Parts
from kaito_hera.settings import Settings
from kaito_hera.status import NodesStatus
from workflows import steps, template


def choice(workspace: Workspace, checked: Any, known: NodesStatus | None) -> dict[str, Any]:
    """Further arguments where several kinds of node would do; `checked` is preflight, `known` what status says."""
    if not nodes.several(workspace):
        return {}
    before = known or NodesStatus()
    refused = [refusal.model_dump(by_alias=True) for refusal in before.refused]
    return {
        "candidate": before.candidate,
        "refused": template.inert_json(json.dumps(refused)),
        "left_out": checked.get_parameter("left-out"),
    }


def place(
    asked: dict[str, Any], settings: Settings, parts: Parts, *, choice: dict[str, Any], when: str | None = None
) -> dict[str, Any]:
    """The arguments with the nodes' kind and names, for the steps that come after.

    Brought nodes are asked for in every attempt: a pod's template names them, and one without would be another one,
    which restarts the server, perhaps elsewhere.
    """
    if not parts.nodes and settings.node_provider != "byo":
        return asked | ({"candidate": choice["candidate"]} if choice else {})
    how = {} if parts.nodes else {"keep": True}
    how |= {name: choice[name] for name in ("refused", "left_out") if choice}
    provisioned = steps.provision_nodes(arguments=asked | how, when=when)
    asked = template.placed(asked, provisioned) | (template.candidate(provisioned) if choice else {})
    steps.await_nodes(arguments=asked, when=when)
    return asked | ({"fresh": True} if parts.nodes else {})
