"""The operator's process: watches, a queue of Workspaces, workers that reconcile, one leader among replicas."""

import datetime
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from kaito_hera import cluster as clusters
from kaito_hera import errors, rival, watched
from kaito_hera.lease import Lease, lead
from kaito_hera.live import Live, Object
from kaito_hera.queue import Queue
from kaito_hera.reconcile import Planner, Reconciler
from kaito_hera.reflector import Key, Reflector, Watched
from kaito_hera.settings import Settings
from kaito_hera.sweep import Sweeper

log = logging.getLogger(__name__)

_WORKERS = 8
_RIVALS = 10.0  # seconds between looks for KAITO's own controller
_RESYNC = 300.0  # seconds between looks at every Workspace, whatever was heard
_BROUGHT = 60.0  # seconds between looks at nodes that were brought: they carry no label to watch by
_LEASE_ANSWER = 3.0  # seconds to wait for one: the Lease runs out meanwhile
_DEAF = 180.0  # seconds without a bookmark after which a watch counts as broken


class Watcher:
    """Everything that runs while this process leads."""

    def __init__(self, cluster: clusters.Cluster, settings: Settings, plan: Planner) -> None:
        self._cluster = cluster
        self._settings = settings
        self._queue: Queue[Key] = Queue()
        self._alone = threading.Event()
        self._reconciler = Reconciler(cluster, settings, plan)
        self._sweeper = Sweeper(cluster, settings, plan)
        self._workspaces = self._reflect(watched.WORKSPACES)
        self._workflows = self._reflect(watched.workflows(settings.namespace))
        self._jobs, self._deployments, self._ray_services, self._pods = (
            self._reflect(watched.made(kind, settings.namespace))
            for kind in (clusters.JOB, clusters.DEPLOYMENT, clusters.RAY_SERVICE, clusters.POD)
        )
        self._nodes = self._reflect(watched.NODES)
        self._beside = tuple(self._reflect(watched.made(kind, settings.namespace)) for kind in watched.BESIDE)

    def start(self) -> None:
        """Start the watches; once each has its first list, the workers."""
        for reflector in self._reflectors:
            reflector.start()
        threading.Thread(target=self._begin, daemon=True).start()

    def healthy(self) -> bool:
        """Whether every watch has heard of the API server lately."""
        now = time.monotonic()
        return all(now - reflector.heard < _DEAF for reflector in self._reflectors)

    @property
    def _reflectors(self) -> tuple[Reflector, ...]:
        servers = self._deployments, self._ray_services
        return self._workspaces, self._workflows, self._jobs, *servers, self._pods, self._nodes, *self._beside

    def _reflect(self, what: Watched) -> Reflector:
        return Reflector(self._cluster, what, self._queue.add)

    def _begin(self) -> None:
        for reflector in self._reflectors:
            reflector.synced.wait()
        log.info("watching %d Workspaces", len(self._workspaces.keys()))
        for number in range(_WORKERS):
            threading.Thread(target=self._work, name=f"worker-{number}", daemon=True).start()
        threading.Thread(target=self._look_for_rivals, daemon=True).start()
        while True:
            time.sleep(_RESYNC)
            for key in {*self._workspaces.keys(), *self._workflows.keys(), *self._nodes.keys()}:
                self._queue.add(key)

    def _look_for_rivals(self) -> None:
        """Let the workers work, unless and until another controller of Workspaces is there."""
        while True:
            try:
                story = rival.found(self._cluster)
            except Exception as cause:
                log.warning("looking for KAITO: %s", cause, exc_info=not isinstance(cause, errors.KaitoError))
            else:
                if story:
                    log.warning("acting on nothing: %s", story)
                    self._alone.clear()
                else:
                    self._alone.set()
            time.sleep(_RIVALS)

    def _work(self) -> None:
        while True:
            key = self._queue.take()
            self._alone.wait()  # not before: idle hands would have passed here long before KAITO came
            try:
                again = self._look_at(key)
            except errors.KaitoError as cause:
                stale = type(cause) in {clusters.ConflictError, clusters.NotFoundError}
                level = logging.DEBUG if stale else logging.WARNING
                log.log(level, "%s: %s; again in %.0f s", "/".join(key), cause, self._queue.failed(key))
            except Exception:
                log.exception("%s: a bug; again in %.0f s", "/".join(key), self._queue.failed(key))
            else:
                self._queue.done(key)
                if again is not None:
                    self._queue.add_after(key, again)

    def _look_at(self, key: Key) -> float | None:
        found = self._workspaces.of(key)
        workspace = found[0] if found else None
        brought = self._brought(workspace)
        seen = Live(
            now=datetime.datetime.now(datetime.UTC),
            workflows=self._workflows.of(key),
            jobs=self._jobs.of(key),
            deployments=(*self._deployments.of(key), *self._ray_services.of(key)),
            pods=self._pods.of(key),
            nodes=(*self._nodes.of(key), *brought),
            beside=tuple(obj for kind in self._beside for obj in kind.of(key)),
        )
        # In this order: what one that is gone has left must not keep anybody from the one that is there.
        looks = self._reconciler.reconcile(workspace, seen), self._sweeper.look(key, workspace, seen)
        return min((look for look in (*looks, _BROUGHT if brought else None) if look is not None), default=None)

    def _brought(self, workspace: Object | None) -> list[Object]:
        """Nodes that the user brought: they carry no label of ours, so they are asked for by their recorded names."""
        if workspace is None or self._settings.node_provider != "byo":
            return []
        recorded = workspace.get("status", {}).get("workerNodes", [])
        found = (self._cluster.get(clusters.NODE, name) for name in recorded)
        return [watched.NODES.trim(node) for node in found if node]


def run(cluster: clusters.Cluster, settings: Settings, plan: Planner, *, health_port: int) -> int:
    """Lead or wait to, until the lead is lost or SIGTERM comes; the code with which the process must end at once.

    What a worker is in the middle of is cut off then: reconciling may be cut off anywhere.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    holder = os.environ.get("HOSTNAME", f"pid-{os.getpid()}")
    watcher = Watcher(cluster, settings, plan)
    leading = threading.Event()
    _serve_health(health_port, lambda: not leading.is_set() or watcher.healthy())

    def begin() -> None:
        leading.set()
        log.info("%s leads", holder)
        watcher.start()

    lease = Lease(cluster.within(_LEASE_ANSWER), "kaito-hera", settings.namespace, holder)
    try:
        lead(lease, begin)
    except SystemExit:
        log.info("%s ends", holder)
        with suppress(errors.KaitoError):  # it runs out by itself
            lease.release()
        return 0
    log.error("%s lost the lead", holder)
    return 1


def _serve_health(port: int, healthy: Callable[[], bool]) -> None:
    """`/healthz` for the kubelet: 200 or 503."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if healthy() else 503)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's signature
            """Probes are not worth a line."""

    server = ThreadingHTTPServer(("", port), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
