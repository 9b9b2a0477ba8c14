"""Get nodes: ask for them and wait until they are usable. What serving and tuning have in common."""

from typing import Any

from kaito_hera.intent import Parts
from kaito_hera.settings import Settings
from workflows import steps, template


def place(asked: dict[str, Any], settings: Settings, parts: Parts, *, when: str | None = None) -> dict[str, Any]:
    """The arguments with the nodes' names, for the steps that come after.

    Brought nodes are asked for in every attempt: a pod's template names them, and one without would be another one,
    which restarts the server, perhaps elsewhere.
    """
    if not parts.nodes and settings.node_provider != "byo":
        return asked
    chosen = asked if parts.nodes else asked | {"keep": True}
    asked = template.placed(asked, steps.provision_nodes(arguments=chosen, when=when))
    steps.await_nodes(arguments=asked, when=when)
    return asked
