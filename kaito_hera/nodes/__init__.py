"""GPU nodes: one Protocol, a module per provider, and the waiting that is the same for all of them.

A provider orders, observes and gives back; whether a node is usable is judged here, by the Node object alone.
"""

import dataclasses
import time
from collections.abc import Callable
from typing import Any, Protocol

import presets
from kaito_hera import errors, names
from kaito_hera.api import Workspace

GPU = "nvidia.com/gpu"
SIZE = "node.kubernetes.io/instance-type"
"""The label that says which GPU size a node is."""
TAINT = {"key": "sku", "value": "gpu", "effect": "NoSchedule"}


@dataclasses.dataclass(frozen=True)
class Want:
    """The nodes that a Workspace needs."""

    workspace: str
    """`namespace/name`."""
    namespace: str
    name: str
    uid: str
    count: int
    size: presets.Size | None
    """None on nodes that were brought: then any GPU node will do."""
    labels: dict[str, str]
    """The user's: put on new nodes, looked for on existing ones."""
    preferred: tuple[str, ...] = ()
    """Names of existing nodes to take first."""

    @property
    def gpus(self) -> int:
        """GPUs that each node must offer."""
        return self.size.gpus if self.size else 1


@dataclasses.dataclass(frozen=True)
class Order:
    """What a provider accepted."""

    candidate: str
    """GPU size and kind of capacity, or the nodes that were found."""
    hostnames: tuple[str, ...] = ()
    """Names of the nodes where they are known beforehand."""


@dataclasses.dataclass(frozen=True)
class Placement:
    """What a pod needs to land on the Workspace's nodes and no others."""

    labels: dict[str, str]
    """Node labels to select by."""
    hostnames: tuple[str, ...] = ()
    """If set, only nodes of these names."""

    def allows(self, node: dict[str, Any]) -> bool:
        """Whether a node that has the labels is one of them."""
        return not self.hostnames or node["metadata"]["name"] in self.hostnames

    def pod_fields(self) -> dict[str, Any]:
        """`nodeSelector`, `affinity` and `tolerations` of a pod spec."""
        tolerations: list[dict[str, Any]] = [
            {"key": TAINT["key"], "operator": "Equal", "value": TAINT["value"], "effect": TAINT["effect"]},
            {"key": GPU, "operator": "Exists", "effect": "NoSchedule"},
            {"key": "kubernetes.azure.com/scalesetpriority", "operator": "Exists", "effect": "NoSchedule"},
        ]
        fields: dict[str, Any] = {"nodeSelector": dict(self.labels), "tolerations": tolerations}
        if self.hostnames:
            # By the Node's own name: the label kubernetes.io/hostname may be another. A field takes one value a term.
            terms = [
                {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [name]}]}
                for name in self.hostnames
            ]
            required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
            fields["affinity"] = {"nodeAffinity": required}
        return fields


class Provider(Protocol):
    """Who makes GPU nodes. Every method may be called again at any time and after a crash."""

    makes_nodes: bool
    """Whether there is something to give back."""

    def order(self, want: Want, *, still_wanted: Callable[[], None], any_ready: Callable[[], bool]) -> Order:
        """Ask for the nodes and return once that is accepted; raises ProvisioningFailedError or NoNodesMatchError.

        `still_wanted` raises when nobody wants the nodes any more, and is asked right before each write: its turn may
        come late. `any_ready` says whether a node of this Workspace is Ready: then nothing is deleted.
        """

    def check(self, want: Want) -> None:
        """Raise ProvisioningFailedError if the order has failed since; silent while it is under way or done."""

    def release(self, uid: str) -> bool:
        """Give back all that was made for the Workspace of this uid, whatever it asks for by now.

        True when nothing billable is left, False while that is under way.
        """

    def placement(self, want: Want, hostnames: tuple[str, ...] = ()) -> Placement:
        """Where pods of this Workspace may run; `hostnames` are those of its order."""


def wanted(workspace: Workspace) -> Want:
    """What this Workspace needs; raises UnknownInstanceTypeError."""
    resource, metadata = workspace.resource, workspace.metadata
    size = None
    if resource.instance_type:
        try:
            size = presets.size(resource.instance_type)
        except presets.UnknownNameError as cause:
            anew = "(delete the Workspace and apply it anew)"
            raise errors.UnknownInstanceTypeError(f"resource.instanceType: {cause} {anew}") from cause
    return Want(
        workspace=workspace.key,
        namespace=metadata.namespace,
        name=metadata.name,
        uid=metadata.uid,
        count=workspace.node_count,
        size=size,
        labels=resource.label_selector.labels(),
        preferred=resource.preferred_nodes,
    )


def release(provider: Provider, uid: str, *, pause: float = 2.0) -> None:
    """Give everything back and wait until nothing billable is left; asked slowly, since a cloud takes minutes."""
    while not provider.release(uid):
        time.sleep(pause)
        pause = min(pause * 1.5, 15.0)


def owner_labels(want: Want) -> dict[str, str]:
    """Labels by which nodes that were made for a Workspace are known."""
    return {names.WORKSPACE: want.name, names.NAMESPACE: want.namespace, names.UID: want.uid}


def unusable(node: dict[str, Any], want: Want) -> str:
    """Why this Node object cannot be worked on yet; empty when it can."""
    status = node.get("status", {})
    if node["metadata"].get("deletionTimestamp"):
        return "is being deleted"
    ready: dict[str, Any] = next((c for c in status.get("conditions", []) if c["type"] == "Ready"), {})
    if ready.get("status") != "True":
        return f"is not Ready: {ready.get('reason', 'no report yet')}: {ready.get('message', '')}".rstrip(": ")
    kind = node["metadata"].get("labels", {}).get(SIZE, "")
    if want.size and kind and kind.lower() != want.size.name.lower():
        return f"is a {kind}, not a {want.size.name}"
    offered = int(status.get("allocatable", {}).get(GPU, "0"))
    if offered < want.gpus:
        return f"is Ready but offers {offered} of {want.gpus} {GPU} (is the device plugin running on it?)"
    return ""
