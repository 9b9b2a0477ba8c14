"""How the weights of a server come that starts: read in a pod's log, noted on the server's object, for status.

The log is a tenant's text: the words of `pace` are taken out of its end, and nothing else.
"""

import contextlib
import time
from typing import Any

from artifacts.weights import pace
from kaito_hera import errors, live, names, rayservice, rollout
from kaito_hera.run import Run

PAUSE = 10.0
"""Seconds between looks, and so the least between what becomes a write of status."""
_CONTAINERS = frozenset({rollout.ROLE, rayservice.FETCHES})


class Arrival:
    """What is noted during one roll-out; when it ends, `answering` takes it away."""

    def __init__(self, run: Run, pause: float = PAUSE) -> None:
        self._run = run
        self._pause = pause
        self._looked_at = float("-inf")

    def look(self, pods: list[dict[str, Any]]) -> None:
        """Note what the first pod that is not ready says, unless that was done shortly before; hinders nobody."""
        if time.monotonic() - self._looked_at < self._pause:
            return
        self._looked_at = time.monotonic()
        with contextlib.suppress(errors.KaitoError):  # a courtesy; the next look tries again
            self._note(self._said(pods))

    def _said(self, pods: list[dict[str, Any]]) -> str:
        for pod in pods:
            metadata, container = pod["metadata"], _running(pod)
            if container and not live.is_ready(pod) and not metadata.get("deletionTimestamp"):
                log = self._run.cluster.tail(metadata["namespace"], metadata["name"], container=container)
                return pace.heard(log)
        return ""

    def _note(self, words: str) -> None:
        kind, server = rollout.standing(self._run.cluster, self._run.workspace)
        if server is None or (server["metadata"].get("annotations") or {}).get(names.PROGRESS, "") == words:
            return
        told = {"metadata": {"annotations": {names.PROGRESS: words or None}}}
        self._run.cluster.patch(kind, server["metadata"]["name"], server["metadata"]["namespace"], told)


def _running(pod: dict[str, Any]) -> str:
    """The container of ours that runs; empty where none does."""
    status = pod.get("status", {})
    found = (*status.get("initContainerStatuses", []), *status.get("containerStatuses", []))
    running = (each["name"] for each in found if each.get("state", {}).get("running"))
    return next((name for name in running if name in _CONTAINERS), "")
