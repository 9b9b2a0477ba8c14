"""A local copy of some objects, kept by LIST and WATCH: paged, with bookmarks, back after every kind of interruption.

One thread per kind. Objects are trimmed as they come in, and an event that changes nothing that was kept wakes nobody.
"""

import dataclasses
import logging
import random
import threading
import time
from collections.abc import Callable

from kaito_hera import cluster as clusters
from kaito_hera import errors
from kaito_hera.live import Object

log = logging.getLogger(__name__)

Key = tuple[str, str]
"""Namespace and name of a Workspace."""


@dataclasses.dataclass(frozen=True)
class Watched:
    """What to keep a copy of."""

    kind: clusters.Kind
    labels: str
    key: Callable[[Object], Key | None]
    """Which Workspace an object belongs to; None for an object that is to be ignored."""
    trim: Callable[[Object], Object]
    """The part of it that is used."""
    namespace: str | None = None
    """Where to look; everywhere if None."""
    optional: bool = False
    """Whether the kind may be unknown to the API server; then there are none, until its CRD is installed."""


class Reflector:
    """The copy of one kind. `changed` is called with the Workspace's key after each change; it must return at once."""

    def __init__(
        self,
        cluster: clusters.Cluster,
        watched: Watched,
        changed: Callable[[Key], None],
        *,
        page: int = 500,
        pause: float = 1.0,
    ) -> None:
        """`page`: objects on a page of a list; `pause`: seconds before a repetition, twice as long each time."""
        self._cluster = cluster
        self._pause = pause
        self._page = page
        self._watched = watched
        self._changed = changed
        self._lock = threading.Lock()
        self._objects: dict[Key, dict[Key, Object]] = {}
        self._owners: dict[Key, Key] = {}
        self._known = True
        self.synced = threading.Event()
        """Set once the first list is complete."""
        self.heard = time.monotonic()
        """When the API server was last heard of."""

    def start(self) -> None:
        """Begin, in a thread of its own that never ends."""
        threading.Thread(target=self._run, name=f"reflect-{self._watched.kind.plural}", daemon=True).start()

    def of(self, key: Key) -> tuple[Object, ...]:
        """The objects of a Workspace."""
        with self._lock:
            return tuple(self._objects.get(key, {}).values())

    def keys(self) -> list[Key]:
        """Every Workspace that has objects here."""
        with self._lock:
            return list(self._objects)

    def _run(self) -> None:
        pause = self._pause
        while True:
            try:
                since = self._list()
                pause, self._known = self._pause, True
                while True:
                    since = self._watch(since)
            except clusters.ExpiredError:
                continue  # list anew at once
            except errors.KaitoError as cause:
                if self._watched.optional and isinstance(cause, clusters.UnknownKindError):
                    self._be_empty(cause)
                else:
                    log.warning("watching %s: %s; again in %.1f s", self._watched.kind.plural, cause, pause)
            except Exception:  # one object that nobody foresaw must not end the watch for all others
                log.exception("watching %s; again in %.1f s", self._watched.kind.plural, pause)
            time.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311 - spreads load, guards nothing
            pause = min(pause * 2, 30.0)

    def _list(self) -> str:
        """Replace the copy by a full list, page by page; the version to watch from."""
        seen: set[Key] = set()
        token = ""
        while True:
            what = self._watched
            page = self._cluster.page(what.kind, what.namespace, labels=what.labels, limit=self._page, token=token)
            for obj in page["items"]:
                seen.add(_id(obj))
                self._keep(obj)
            token = page["metadata"].get("continue", "")
            if not token:
                break
        self._complete(seen)
        return str(page["metadata"]["resourceVersion"])

    def _be_empty(self, cause: clusters.UnknownKindError) -> None:
        if self._known:
            log.warning("no %s to watch: %s", self._watched.kind.plural, cause)
        self._known = False
        self._complete(set())

    def _complete(self, seen: set[Key]) -> None:
        """That was all there is."""
        for gone in self._owners.keys() - seen:
            self._drop(gone)
        self.heard = time.monotonic()
        self.synced.set()

    def _watch(self, since: str) -> str:
        seconds = random.uniform(240, 300)  # noqa: S311 - so that not all streams end at once
        what = self._watched
        watch = self._cluster.watch(what.kind, what.namespace, labels=what.labels, since=since, seconds=seconds)
        for happened, obj in watch:
            self.heard = time.monotonic()
            since = obj["metadata"]["resourceVersion"]
            if happened == "DELETED":
                self._drop(_id(obj))
            elif happened != "BOOKMARK":
                self._keep(obj)
        return since

    def _keep(self, obj: Object) -> None:
        identity, key = _id(obj), self._watched.key(obj)
        if self._owners.get(identity, key) != key:
            self._drop(identity)  # its labels name another Workspace now
        if key is None:
            return
        trimmed = self._watched.trim(obj)
        with self._lock:
            before = self._objects.get(key, {}).get(identity)
            if before == trimmed:
                return
            self._objects.setdefault(key, {})[identity] = trimmed
            self._owners[identity] = key
        self._changed(key)

    def _drop(self, identity: Key) -> None:
        with self._lock:
            key = self._owners.pop(identity, None)
            if key is None:
                return
            rest = self._objects[key]
            del rest[identity]
            if not rest:
                del self._objects[key]
        self._changed(key)


def _id(obj: Object) -> Key:
    return obj["metadata"].get("namespace", ""), obj["metadata"]["name"]
