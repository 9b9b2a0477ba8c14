"""Waiting until nodes are usable and have been so for a while: a node that flaps wastes a whole run."""

import time
from typing import Any

from kaito_hera import cluster as clusters
from kaito_hera import errors, live, nodes
from kaito_hera.nodes import Want, disk, drivers
from kaito_hera.run import Run

_LOOK = 5.0  # seconds between looks when nothing happens


class Calm:
    """Remembers since when each node has been usable. Pure: the caller brings the time."""

    def __init__(self, want: Want, steady: float) -> None:
        self._want = want
        self._steady = steady
        self._since: dict[str, float] = {}  # by uid: a node that is deleted and made again starts anew
        self.reasons: dict[str, str] = {}
        """Why each node is not usable yet, by name; empty for usable ones."""

    def see(self, found: list[dict[str, Any]], now: float) -> list[str]:
        """Take note of the nodes as they are now; the names of those that were usable for long enough."""
        self.reasons = {node["metadata"]["name"]: nodes.unusable(node, self._want) for node in found}
        usable = {n["metadata"]["uid"]: n["metadata"]["name"] for n in found if not self.reasons[n["metadata"]["name"]]}
        self._since = {uid: self._since.get(uid, now) for uid in usable}
        return sorted(name for uid, name in usable.items() if now - self._since[uid] >= self._steady)

    def wait(self, now: float) -> float:
        """Seconds until the next node has been usable for long enough, if nothing happens meanwhile."""
        rests = [self._steady - (now - since) for since in self._since.values()]
        return min([_LOOK, *(rest for rest in rests if rest > 0)])

    def story(self) -> str:
        """Where things stand, each unusable node with its reason."""
        size = self._want.candidate or "GPU"
        good = sum(1 for reason in self.reasons.values() if not reason)
        bad = "; ".join(f"{name} {reason}" for name, reason in sorted(self.reasons.items()) if reason)
        return f"{good} of {self._want.count} {size} nodes usable" + (f": {bad}" if bad else "")


def any_ready(run: Run, want: Want) -> bool:
    """Whether a node of the Workspace, of the kind that it wants, is Ready: a server may run there."""
    placement = run.provider.placement(want)
    found = run.cluster.items(clusters.NODE, labels=clusters.selector(placement.labels))
    return any(live.is_ready(node) and placement.allows(node) for node in found)


def await_ready(run: Run, hostnames: tuple[str, ...], *, ask: float = 15.0) -> list[str]:
    """Return the names of the wanted number of nodes that stayed usable; prints what it waits for as that changes.

    The provider, which may be rate limited, is asked every `ask` seconds whether its order has failed. Raises
    NodesNotReadyError at the timeout, naming each node with its reason, UnsupportedGPUError as soon as a node says that
    the images cannot use its GPUs, InsufficientDiskError where the weights do not fit its disk (for both
    UnsupportedNodeError where other sizes may do), and whatever the provider raises.
    """
    want = run.want
    timeout = run.workspace.resource.provisioning_timeout_seconds or run.settings.node_timeout_seconds
    placement = run.placement(hostnames)
    labels = clusters.selector(placement.labels)
    calm = Calm(want, run.settings.node_steady_seconds)
    began = asked = time.monotonic()
    told = ""
    while True:
        page = run.cluster.page(clusters.NODE, labels=labels)
        now = time.monotonic()
        found = [node for node in page["items"] if placement.allows(node)]
        _pass_hopeless(run, found, want)
        ready = calm.see(found, now)
        if len(ready) >= want.count:
            return ready
        if now - began >= timeout:
            raise errors.NodesNotReadyError(f"{calm.story()} after {timeout} s; the next attempt looks again")
        if calm.story() != told:
            told = calm.story()
            print(told, flush=True)
        if now - asked >= ask:
            run.provider.check(want)
            asked = now
        pause = min(calm.wait(now), began + timeout - now, asked + ask - now)
        run.cluster.await_change(clusters.NODE, None, page, labels=labels, seconds=pause)


def _pass_hopeless(run: Run, found: list[dict[str, Any]], want: Want) -> None:
    """No node is one that waiting makes no better, and that costs while one waits."""
    others = len(set(run.workspace.resource.sizes)) > 1
    for node in found:
        gpus = drivers.refused(node, want.kernels) if want.kernels else ""
        if why := gpus or disk.refused(node, want.weights_gib):
            final = errors.UnsupportedGPUError if gpus else errors.InsufficientDiskError
            kind = errors.UnsupportedNodeError if others else final
            raise kind(f"node {node['metadata']['name']} {why}; take {_OTHER_GPUS if gpus else _MORE_DISK}")


_OTHER_GPUS = "a size with other GPUs, a newer driver, or images that are built for these (make images TORCH=...)"
_MORE_DISK = "a size with more disk"
