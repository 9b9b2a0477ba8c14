"""When things happened in the cluster, as one observer saw them: seconds since the epoch, to the tenth or better."""

import re
import threading
import time

from kaito_hera import cluster as clusters
from kaito_hera import errors, nodes, status
from kaito_hera.api import Workspace

EVENT = clusters.Kind("Event", "events")
_PULLED = re.compile(r"Successfully pulled image .* in ([0-9.]+)(ms|s)\b")


class Recorder:
    """Watches nodes while a Workspace comes up; what pods did is read from their own timestamps afterwards."""

    def __init__(self, kube, workspace):
        self._kube = kube
        self._want = nodes.wanted(Workspace.parse(workspace))
        self._stop = threading.Event()
        self.usable = {}
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self):
        self._stop.set()

    def _watch(self):
        labels = clusters.selector(nodes.owner_labels(self._want))
        while not self._stop.is_set():
            try:
                page = self._kube.page(clusters.NODE, labels=labels)
                for node in page["items"]:
                    if not nodes.unusable(node, self._want):
                        self.usable.setdefault(node["metadata"]["name"], time.time())
                self._kube.await_change(clusters.NODE, None, page, labels=labels, seconds=1)
            except errors.KaitoError:
                time.sleep(0.2)


def container(kube, namespace, role):
    """(started, ready, finished) of the role's newest pod; None for what did not happen."""
    found = kube.items(clusters.POD, namespace, labels=f"kaito.sh/role={role}")
    pod = max(found, key=lambda pod: pod["metadata"]["creationTimestamp"])
    state = pod["status"]["containerStatuses"][0]["state"]
    now = state.get("running") or state.get("terminated")
    ready = [
        c["lastTransitionTime"] for c in pod["status"]["conditions"] if c["type"] == "Ready" and c["status"] == "True"
    ]
    return seconds(now["startedAt"]), seconds(ready[0]) if ready else None, seconds(now.get("finishedAt"))


def pulls(kube, namespace):
    """Seconds that pods of a namespace waited for images, by the kubelet's own account."""
    total = 0.0
    for event in kube.items(EVENT, namespace):
        if match := _PULLED.search(event.get("message", "")):
            total += float(match[1]) / (1000 if match[2] == "ms" else 1)
    return total


def seconds(text):
    return status.moment(text).timestamp() if text else None
