"""Which GPUs are free, as the scheduler counts: by what pods on a node were given, whether they use it or not."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from kaito_hera import nodes

_DONE = frozenset({"Succeeded", "Failed"})


def running(pods: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The pods that have not ended: those that hold what they were given."""
    return [pod for pod in pods if pod.get("status", {}).get("phase") not in _DONE]


def of(pod: dict[str, Any], device: str = nodes.GPU) -> int:
    """GPUs, or slices of that kind, that a pod asks for."""
    limits = [container.get("resources", {}).get("limits", {}) for container in pod["spec"]["containers"]]
    return sum(int(limit.get(device, "0")) for limit in limits)


def taken(pods: Iterable[dict[str, Any]], device: str = nodes.GPU) -> Counter[str]:
    """GPUs, or slices of that kind, that these pods hold on each node."""
    held: Counter[str] = Counter()
    for pod in pods:
        held[pod["spec"].get("nodeName", "")] += of(pod, device)
    return held


def free(node: dict[str, Any], held: Counter[str], device: str = nodes.GPU) -> int:
    """GPUs, or slices of that kind, of a node that are left."""
    return int(node.get("status", {}).get("allocatable", {}).get(device, "0")) - held[node["metadata"]["name"]]
