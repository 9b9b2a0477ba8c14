"""What a Job controller and a kubelet do to pods, done by hand; logs come from here through the API server."""

import contextlib
import uuid

from kaito_hera import cluster as clusters
from tests.cluster.simulators import web

NOW = "2026-01-01T00:00:00Z"


class Kubelet:
    """One node with its pods, in one namespace."""

    def __init__(self, cluster, namespace, port):
        self._cluster, self._namespace = cluster, namespace
        self.node = f"node-{namespace}"
        self.log = []
        """What the container wrote: time and text."""
        self.asked = []
        """What was asked for of the log."""
        cluster.create(clusters.NODE, {"metadata": {"name": self.node}})
        status = {
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
        }
        cluster.patch(clusters.NODE, self.node, None, {"status": status}, subresource="status")

    def start(self, job, phase="Running"):
        """Make the pod of a Job."""
        template = job["spec"]["template"]
        name = f"{job['metadata']['name']}-{uuid.uuid4().hex[:5]}"
        labels = {**template["metadata"].get("labels", {}), "batch.kubernetes.io/job-name": job["metadata"]["name"]}
        spec = {**template["spec"], "nodeName": self.node}
        self._cluster.create(
            clusters.POD, {"metadata": {"name": name, "namespace": self._namespace, "labels": labels}, "spec": spec}
        )
        self.report(name, phase=phase)
        return name

    def report(self, pod, **status):
        self._cluster.patch(clusters.POD, pod, self._namespace, {"status": status}, subresource="status")

    def end(self, pod, code=0, message="", reason="Completed", **status):
        """The container of a pod ends."""
        name = self._cluster.get(clusters.POD, pod, self._namespace)["spec"]["containers"][0]["name"]
        terminated = {"exitCode": code, "message": message, "reason": reason, "finishedAt": NOW}
        container = {"name": name, "image": "i", "imageID": "", "ready": False, "restartCount": 0}
        container["state"] = {"terminated": terminated}
        self.report(pod, phase="Failed" if code else "Succeeded", containerStatuses=[container], **status)

    def drop(self, pod):
        """The pod is gone, as after its node."""
        options = {"gracePeriodSeconds": 0}
        path = f"/api/v1/namespaces/{self._namespace}/pods/{pod}"
        self._cluster._json("DELETE", path, body=options)

    def conclude(self, job, *kinds, reason="", **status):
        """The Job controller's conditions."""
        conditions = [{"type": kind, "status": "True", "reason": reason} for kind in kinds]
        status = {"startTime": NOW, "conditions": conditions, **status}
        self._cluster.patch(clusters.JOB, job, self._namespace, {"status": status}, subresource="status")

    def handle(self, request):
        """The kubelet's own API: the log as far as it goes, and then the stream ends."""
        self.asked.append(request)
        query = request.query
        since, last = query.get("sinceTime", ""), int(query.get("tailLines", len(self.log)))
        found = [(when, text) for when, text in self.log if when[:19] >= since[:19]]
        lines = [f"{when} {text}\n" if "timestamps" in query else f"{text}\n" for when, text in found[-last:]]
        content = "".join(lines).encode()
        return web.Answer(200, content[: int(query.get("limitBytes", len(content)))], {"Content-Type": "text/plain"})


@contextlib.contextmanager
def kubelet(cluster, namespace, tls):
    """A Kubelet that answers."""
    playing = []

    def handle(request):
        return playing[0].handle(request)

    with web.serving(("127.0.0.1", 0), tls.cert, tls.key, handle=handle, log=lambda *_: None) as server:
        playing.append(Kubelet(cluster, namespace, server.port))
        yield playing[0]
        cluster.delete(clusters.NODE, playing[0].node)
