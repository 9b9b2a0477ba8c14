"""A Kubernetes Lease: who leads among watchers, and whose turn it is to write to a cloud.

Only the holder's own clock is trusted: another's lease has run out when it was seen unchanged for its whole duration.
"""

import datetime
import math
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from kaito_hera import cluster as clusters
from kaito_hera import errors


class Lease:
    """One holder's view of one Lease object."""

    def __init__(self, cluster: clusters.Cluster, name: str, namespace: str, holder: str, *, seconds: int = 15) -> None:
        self._cluster = cluster
        self._name = name
        self._namespace = namespace
        self._holder = holder
        self._seconds = seconds
        self._seen = ""
        self._seen_at = 0.0

    def acquire(self) -> bool:
        """Take or renew the lease; False while another holds it."""
        found = self._cluster.get(clusters.LEASE, self._name, self._namespace)
        try:
            if found is None:
                self._cluster.create(clusters.LEASE, self._object({}))
                return True
            if found["spec"].get("holderIdentity") not in {self._holder, "", None} and not self._expired(found):
                return False
            self._cluster.replace(clusters.LEASE, self._object(found))
        except clusters.ConflictError:
            return False
        return True

    def release(self) -> None:
        """Let it go at once; harmless when another holds it."""
        found = self._cluster.get(clusters.LEASE, self._name, self._namespace)
        if found is None or found["spec"].get("holderIdentity") != self._holder:
            return
        found["spec"]["holderIdentity"] = ""
        try:
            self._cluster.replace(clusters.LEASE, found)
        except clusters.ConflictError:
            return

    def _expired(self, found: dict[str, Any]) -> bool:
        version = found["metadata"]["resourceVersion"]
        if version != self._seen:
            self._seen, self._seen_at = version, time.monotonic()
        duration: int = found["spec"].get("leaseDurationSeconds", self._seconds)
        return time.monotonic() - self._seen_at > duration

    def _object(self, found: dict[str, Any]) -> dict[str, Any]:
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = found.get("spec", {})
        kept = spec.get("acquireTime", now) if spec.get("holderIdentity") == self._holder else now
        return {
            "apiVersion": clusters.LEASE.api_version,
            "kind": clusters.LEASE.name,
            "metadata": found.get("metadata") or {"name": self._name, "namespace": self._namespace},
            "spec": {
                "holderIdentity": self._holder,
                "leaseDurationSeconds": self._seconds,
                "acquireTime": kept,
                "renewTime": now,
            },
        }


@contextmanager
def turn(lease: Lease, *, timeout: float = 300.0) -> Iterator[None]:
    """Wait for the lease, hold it for some seconds of work, let it go; raises ClusterUnavailableError."""
    deadline = time.monotonic() + timeout
    while not lease.acquire():
        if time.monotonic() > deadline:
            raise errors.ClusterUnavailableError(
                f"another run holds the lock for {timeout:.0f} s; the next attempt tries again"
            )
        time.sleep(1.0)
    try:
        yield
    finally:
        with suppress(errors.KaitoError):  # it runs out by itself, and what was done is done
            lease.release()


def lead(lease: Lease, work: Callable[[], None], *, renew: float = 2.0, give_up: float = 10.0) -> None:
    """Wait for the lease, start `work` (which returns at once), renew for ever; returns when the lease is lost.

    It counts as lost `give_up` seconds after the last renewal began, however long the API server takes to answer the
    next: another may take it as soon as it has run out.
    """
    while (held := _tried(lease)) + give_up < time.monotonic():
        time.sleep(renew)
    renewals: queue.SimpleQueue[float] = queue.SimpleQueue()
    threading.Thread(target=_renew, args=(lease, renewals, renew), name="lease", daemon=True).start()
    work()
    with suppress(queue.Empty):
        while True:
            held = max(held, renewals.get(timeout=max(0.0, held + give_up - time.monotonic())))


def _renew(lease: Lease, renewals: "queue.SimpleQueue[float]", pause: float) -> None:
    while True:
        time.sleep(pause)
        renewals.put(_tried(lease))


def _tried(lease: Lease) -> float:
    """Since when it is surely held: for ever ago if it is not."""
    began = time.monotonic()
    try:
        return began if lease.acquire() else -math.inf
    except errors.KaitoError:
        return -math.inf
