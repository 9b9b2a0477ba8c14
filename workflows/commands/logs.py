"""The logs of a Workspace's tuning pods, all attempts, read further each time they are asked for."""

from typing import Any

from kaito_hera import cluster as clusters
from kaito_hera import errors, names
from kaito_hera.cluster import Cluster
from tuning.config import Progress
from workflows.commands import curves
from workflows.commands.curves import Curve

_ROLE = "tuning"


class Logs:
    """Progress lines by pod."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._lines: dict[str, dict[str, str]] = {}

    def curve(self, workspace: dict[str, Any]) -> Curve:
        """What the pods that are still there have said so far, and those that were there when this was asked before."""
        metadata = workspace["metadata"]
        labels = clusters.selector({names.UID: metadata["uid"], names.ROLE: _ROLE})
        found = self._cluster.items(clusters.POD, metadata["namespace"], labels=labels)
        for pod in sorted(found, key=lambda pod: str(pod["metadata"].get("creationTimestamp"))):
            if pod.get("status", {}).get("phase") != "Pending":
                self._read(metadata["namespace"], pod["metadata"]["name"])
        return curves.of_logs(lines.values() for lines in self._lines.values())

    def _read(self, namespace: str, pod: str) -> None:
        lines = self._lines.setdefault(pod, {})
        since = max(lines, default="")
        try:
            for line in self._cluster.logs(namespace, pod, container=_ROLE, since=since, follow=False):
                when, _, text = line.partition(" ")
                if Progress.parse(text):
                    lines[when] = text
        except errors.ForbiddenError:
            raise
        except errors.KaitoError:
            return  # a pod that goes, or a node that does not answer: what was read stays
