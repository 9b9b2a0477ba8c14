"""What must run again: three hashes over what the user asked for, and which of them reality does not yet match.

Operator version, images and settings do not count, so an upgrade restarts nothing.
"""

import dataclasses
import hashlib
import json
from typing import Any

from kaito_hera.api import Workspace


@dataclasses.dataclass(frozen=True)
class Intent:
    """Hashes of what is asked of the nodes, of tuning and of serving; empty where nothing is asked."""

    nodes: str = ""
    tune: str = ""
    serve: str = ""

    def dump(self) -> str:
        """JSON, for an annotation."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def parse(cls, text: str) -> "Intent":
        """The reverse of `dump`; anything unreadable is an empty intent, which matches nothing."""
        try:
            return cls(**json.loads(text))
        except (ValueError, TypeError):
            return cls()


@dataclasses.dataclass(frozen=True)
class Parts:
    """The parts of an attempt; all False is nothing to do."""

    nodes: bool = False
    tune: bool = False
    serve: bool = False

    def __bool__(self) -> bool:
        return self.nodes or self.tune or self.serve


def of(workspace: Workspace) -> Intent:
    """The hashes of what this Workspace asks for."""
    resource = workspace.resource
    nodes = [
        resource.instance_type,
        workspace.node_count,
        resource.label_selector.labels(),
        sorted(resource.preferred_nodes),
    ]
    tune: list[Any] = []
    if tuning := workspace.tuning:
        # The push secret is how the result gets there, not what it is.
        source = sorted(tuning.input.urls)
        tune = [tuning.preset.name, tuning.method, tuning.config, source, tuning.output.image]
    serve: list[Any] = []
    if workspace.serves:
        adapters = workspace.inference.adapters if workspace.inference else ()
        serve = [workspace.preset_name, workspace.node_count, [a.model_dump() for a in adapters], tune]
    return Intent(nodes=_hash(nodes), tune=_hash(tune), serve=_hash(serve))


def _hash(value: list[Any]) -> str:
    if not value:
        return ""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
