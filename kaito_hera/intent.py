"""What must run again: three hashes over what the user asked for, and which of them reality does not yet match.

Operator version, images and settings do not count, so an upgrade restarts nothing.
"""

import dataclasses
import hashlib
import json
from typing import Any

from kaito_hera import names
from kaito_hera.api import Workspace, annotations
from kaito_hera.settings import Settings


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
    push: bool = False
    """What was trained waits on its volume; the others follow once it is pushed."""

    def __bool__(self) -> bool:
        return self.nodes or self.tune or self.serve or self.push


def of(workspace: Workspace) -> Intent:
    """The hashes of what this Workspace asks for."""
    resource = workspace.resource
    nodes = [
        resource.instance_type,
        workspace.node_count,
        resource.label_selector.labels(),
        sorted(resource.preferred_nodes),
        *_given(
            sizes=resource.instance_types,
            capacity=resource.capacity,
            partition=resource.partition and resource.partition.model_dump(),
            family=workspace.annotation(annotations.IMAGE_FAMILY),
        ),
    ]
    return Intent(nodes=_hash(nodes), tune=_hash(_tune(workspace)), serve=_hash(_serve(workspace)))


def trained(workspace: Workspace) -> str:
    """Hash of what is trained, wherever its image goes: what waits for its push follows an edit of that place."""
    return _hash(_tune(workspace, image=""))


def made_for(workflow: dict[str, Any]) -> Intent:
    """What a Workflow was made for."""
    return Intent.parse(workflow["metadata"].get("annotations", {}).get(names.INTENT, ""))


def _tune(workspace: Workspace, *, image: str | None = None) -> list[Any]:
    if workspace.tuning is None:
        return []
    # The push secret is how the result gets there, not what it is.
    tuning = workspace.tuning
    asked = tuning.input
    given = _given(
        volume=asked.volume_source and asked.volume_source.pod_volume(),
        image=asked.image,
        output=tuning.output.volume_source and tuning.output.volume_source.pod_volume(),
        weights=tuning.preset.options.image,
    )
    to = tuning.output.image if image is None else image
    return [tuning.preset.name, tuning.method, tuning.config, sorted(asked.urls), to, *given]


def _serve(workspace: Workspace) -> list[Any]:
    if not workspace.serves:
        return []
    asked = workspace.inference
    options = workspace.preset and workspace.preset.options
    given = _given(
        template=asked and asked.template,
        config=asked and asked.config,
        weights=options and options.image,
        token=options and options.model_access_secret,
        pull=options and options.image_pull_secrets,
        lb=workspace.annotation(annotations.ENABLE_LB) == "true",
        key=workspace.annotation(annotations.API_KEY),
        runtime="vllm" if workspace.annotation(annotations.RUNTIME) == "vllm" else "",
        cache=workspace.annotation(annotations.CACHE),
    )
    name = workspace.preset.name if workspace.preset else ""
    adapters = [a.model_dump(exclude_none=True) for a in workspace.adapters]
    return [name, workspace.node_count, adapters, _tune(workspace), *given]


def _given(**parts: Any) -> list[Any]:
    """What is given of optional parts, so that one that is new to this version changes no hash of an old Workspace."""
    return [{name: value for name, value in parts.items() if value}] if any(parts.values()) else []


def _hash(value: list[Any]) -> str:
    if not value:
        return ""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def scratch(workspace: Workspace, settings: Settings) -> str:
    """The StorageClass of a volume on which what is trained lies first; empty where there is to be none."""
    return settings.tuning_scratch if workspace.tuning and workspace.tuning.output.image else ""
