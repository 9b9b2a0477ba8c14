"""Nodes that are there already: found by the Workspace's labels, never made, changed or given back."""

from collections import Counter
from collections.abc import Callable
from typing import Any

from kaito_hera import cluster as clusters
from kaito_hera import errors, names, nodes
from kaito_hera.nodes import Order, Placement, Want, gpus


class ByoProvider:
    """Takes `want.count` nodes with enough free GPUs: preferred ones, those it has, those with most free GPUs."""

    makes_nodes = False

    def __init__(self, cluster: clusters.Cluster) -> None:
        self._cluster = cluster

    def order(self, want: Want, *, still_wanted: Callable[[], None], any_ready: Callable[[], bool]) -> Order:
        """Look for nodes; raises NoNodesMatchError naming every node that does not fit and why."""
        del still_wanted, any_ready  # nothing is written
        labels = clusters.selector(want.labels)
        found = self._cluster.items(clusters.NODE, labels=labels)
        running = gpus.running(self._cluster.items(clusters.POD))
        own = [pod for pod in running if pod["metadata"].get("labels", {}).get(names.UID) == want.uid]
        held = {pod["spec"].get("nodeName", "") for pod in own if gpus.of(pod)}  # its steps may run anywhere
        taken = gpus.taken(pod for pod in running if pod not in own)
        reasons = {node["metadata"]["name"]: _unfit(node, want, taken) for node in found}
        fit = [node for node in found if not reasons[node["metadata"]["name"]]]
        if len(fit) < want.count:
            story = "; ".join(f"{name} {reason}" for name, reason in sorted(reasons.items()) if reason)
            raise errors.NoNodesMatchError(
                f"resource.labelSelector {labels or '(empty)'}: {len(fit)} of {want.count} nodes fit"
                f"{': ' + story if story else ', no node has these labels'}; label GPU nodes or free GPUs"
            )
        fit.sort(key=lambda node: _rank(node, want, held, taken))
        hostnames = tuple(sorted(node["metadata"]["name"] for node in fit[: want.count]))
        return Order(candidate=", ".join(hostnames), hostnames=hostnames)

    def check(self, want: Want) -> None:
        """Nothing can fail later: the nodes are there."""

    def release(self, uid: str) -> bool:
        """Nothing was bought."""
        del uid
        return True

    def placement(self, want: Want, hostnames: tuple[str, ...] = ()) -> Placement:
        """The nodes of the order, or while there is none all that carry the labels."""
        return Placement(labels=want.labels, hostnames=hostnames)


def _unfit(node: dict[str, Any], want: Want, taken: Counter[str]) -> str:
    if node.get("spec", {}).get("unschedulable"):
        return "is cordoned"
    reason = nodes.unusable(node, want)
    if reason:
        return reason
    free = gpus.free(node, taken)
    return "" if free >= want.gpus else f"has {free} free GPUs, {want.gpus} are needed"


def _rank(node: dict[str, Any], want: Want, held: set[str], taken: Counter[str]) -> tuple[bool, bool, int, str]:
    name = node["metadata"]["name"]
    # A server that runs there need not move when the Workspace gets more nodes, or another in place of one.
    return (name not in want.preferred, name not in held, -gpus.free(node, taken), name)
