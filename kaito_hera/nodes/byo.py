"""Nodes that are there already: found by the Workspace's labels, never made, changed or given back."""

import hashlib
from collections import Counter
from collections.abc import Callable
from typing import Any

from kaito_hera import cluster as clusters
from kaito_hera import errors, names, nodes
from kaito_hera.nodes import Order, Placement, Want, gpus, taints

_SPOT = {
    "kubernetes.azure.com/scalesetpriority": {"spot"},
    "karpenter.sh/capacity-type": {"spot"},
    "eks.amazonaws.com/capacityType": {"spot"},
    "cloud.google.com/gke-spot": {"true"},
}
"""Labels and values by which clouds say that a node is spot; one without any of them is on-demand."""


class ByoProvider:
    """Takes `want.count` nodes with enough free GPUs: preferred ones, those it has, those with most free GPUs."""

    makes_nodes = False

    def __init__(self, cluster: clusters.Cluster) -> None:
        self._cluster = cluster

    def standing(self, wants: tuple[Want, ...]) -> dict[str, str]:
        """The candidates on whose nodes the Workspace works already."""
        held = self._held(wants[0], gpus.running(self._cluster.items(clusters.POD)))
        found = [node for name in held if name and (node := self._cluster.get(clusters.NODE, name))]
        return {want.candidate: "" for want in wants if any(not _other(node, want) for node in found)}

    def drop(self, want: Want, *, still_wanted: Callable[[], None]) -> None:
        """Nothing was bought."""

    def drop_others(self, want: Want) -> None:
        """Nothing was bought."""

    def order(self, want: Want, *, still_wanted: Callable[[], None], any_ready: Callable[[], bool]) -> Order:
        """Look for nodes; raises NoNodesMatchError naming every node that does not fit and why."""
        del still_wanted, any_ready  # nothing is written
        labels = clusters.selector(want.labels)
        found = self._cluster.items(clusters.NODE, labels=labels)
        running = gpus.running(self._cluster.items(clusters.POD))
        held = self._held(want, running)
        taken = gpus.taken((pod for pod in running if not _is_own(pod, want)), want.device)
        reasons = {node["metadata"]["name"]: _unfit(node, want, taken) for node in found}
        fit = [node for node in found if not reasons[node["metadata"]["name"]]]
        if len(fit) < want.count:
            raise errors.NoNodesMatchError(_story(want, labels, len(fit), reasons))
        fit.sort(key=lambda node: _rank(node, want, held, taken))
        hostnames = tuple(sorted(node["metadata"]["name"] for node in fit[: want.count]))
        return Order(candidate=want.candidate, hostnames=hostnames)

    def _held(self, want: Want, running: list[dict[str, Any]]) -> set[str]:
        """Nodes on which the Workspace holds GPUs; its steps may run anywhere."""
        own = (pod for pod in running if _is_own(pod, want))
        return {pod["spec"].get("nodeName", "") for pod in own if gpus.of(pod, want.device)}

    def check(self, want: Want) -> None:
        """Nothing can fail later: the nodes are there."""

    def release(self, uid: str) -> bool:
        """Nothing was bought."""
        del uid
        return True

    def placement(self, want: Want, hostnames: tuple[str, ...] = ()) -> Placement:
        """The nodes of the order, or while there is none all that carry the labels."""
        share = want.share or 1
        return Placement(want.labels, hostnames, device=want.device, share=share, whole=want.gpus)


def _story(want: Want, labels: str, fit: int, reasons: dict[str, str]) -> str:
    unfit = "; ".join(f"{name} {reason}" for name, reason in sorted(reasons.items()) if reason)
    return (
        f"resource.labelSelector {labels or '(empty)'}: {fit} of {want.count} nodes fit"
        f"{': ' + unfit if unfit else ', no node has these labels'}; label GPU nodes or free GPUs"
    )


def _is_own(pod: dict[str, Any], want: Want) -> bool:
    """Whether a pod is the Workspace's: ours, or one of the server that KAITO made for it, which gives way to ours."""
    metadata = pod["metadata"]
    labels = metadata.get("labels", {})
    theirs = labels.get(names.WORKSPACE) == names.label(want.name) and metadata.get("namespace") == want.namespace
    return bool(labels[names.UID] == want.uid if names.UID in labels else theirs)


def _unfit(node: dict[str, Any], want: Want, taken: Counter[str]) -> str:
    if node.get("spec", {}).get("unschedulable"):
        return "is cordoned"
    reason = nodes.unusable(node, want) or _other(node, want)
    if reason:
        return reason
    borne = [*Placement(want.labels, device=want.device).tolerations, *want.tolerations]
    if taint := taints.repelling(node, borne):
        return f"has the taint {taint}, which its pods do not tolerate"
    free = gpus.free(node, taken, want.device)
    what = "GPUs" if want.device == nodes.GPU else want.device
    return "" if free >= want.gpus else f"has {free} free {what}, {want.gpus} are needed"


def _other(node: dict[str, Any], want: Want) -> str:
    """Of which other kind a node is than the candidate; empty when it is of that kind, as far as its labels say."""
    labels = node["metadata"].get("labels", {})
    size = labels.get(nodes.SIZE, "")
    if want.size and size and size.lower() != want.size.name.lower():
        return f"is a {size}, not a {want.size.name}"
    spot = any(str(labels.get(key, "")).lower() in values for key, values in _SPOT.items())
    if want.capacity and spot != (want.capacity == "spot"):
        return "is spot, not on-demand" if spot else f"is not spot: it has none of the labels {', '.join(_SPOT)}"
    return ""


def _rank(node: dict[str, Any], want: Want, held: set[str], taken: Counter[str]) -> tuple[bool, bool, int, str]:
    name = node["metadata"]["name"]
    # A server that runs there need not move when the Workspace gets more nodes, or another in place of one.
    # Workspaces that come together find the same nodes free: each begins at another one.
    turn = hashlib.sha256(f"{want.uid}/{name}".encode()).hexdigest()
    return (name not in want.preferred, name not in held, -gpus.free(node, taken, want.device), turn)
