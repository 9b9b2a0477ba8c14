"""A roll-out against a real API server; the test plays Deployment controller, kubelet and server."""

import concurrent.futures
import contextlib
import copy
import dataclasses
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from kaito_hera import answering, nodes, rollout
from kaito_hera import cluster as clusters
from kaito_hera.api import Workspace
from kaito_hera.run import Run
from tests import making
from tests.apiserver.conftest import until
from workflows import asks

ADAPTERS = [{"source": {"name": "style", "image": "team.azurecr.io/style:1"}, "strength": "0.5"}]


class Served:
    """What a server answers on /v1/models."""

    def __init__(self):
        self.status, self.body = 200, {"ready": True, "adapters": []}
        self.headers = {}
        self.key = ""
        """What it wants to be asked with."""
        self.asked = 0
        self.drips = False

    def load(self, state, **more):
        self.body = {
            "ready": state == "loaded",
            "adapters": [
                {"name": "style", "image": "team.azurecr.io/style:1", "strength": 0.5, "state": state, **more}
            ],
        }


@contextlib.contextmanager
def answers(served):
    """The server on a port of its own."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            assert self.path == "/v1/models"
            served.asked += 1
            if served.drips:
                with contextlib.suppress(OSError):
                    self.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
                    while served.drips:
                        self.wfile.write(b"x")
                        time.sleep(0.05)
                return
            data = served.body if isinstance(served.body, bytes) else json.dumps(served.body).encode()
            known = not served.key or self.headers.get("Authorization") == f"Bearer {served.key}"
            self.send_response(served.status if known else 401)
            self.send_header("Content-Length", str(len(data)))
            for name, value in served.headers.items():
                self.send_header(name, value)
            self.end_headers()
            with contextlib.suppress(OSError):  # nobody reads what is too long
                self.wfile.write(data)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


class Rollout:
    """A server that was rolled out, and who plays with it."""

    def __init__(self, run, server, pool):
        self.cluster, self.namespace = run.cluster, run.workspace.metadata.namespace
        self._run, self._server, self._pool = run, server, pool
        self._template = None

    def apply(self):
        rollout.apply(self._run, self._server, nodes.Placement(labels={"a": "b"}))
        found = self.cluster.get(clusters.DEPLOYMENT, "w", self.namespace)
        self._template = found["spec"]["template"]
        return found

    def wait(self, timeout=20, patience=10.0, **options):
        settings = self._run.settings.model_copy(
            update={"server_timeout_seconds": timeout, "weights_megabytes_per_second": 1e9}
        )
        run = Run(self.cluster, self._run.workspace, settings, None)
        return self._pool.submit(answering.await_answering, run, self._server, look=0.2, patience=patience, **options)

    def pod(self, name="p", address="127.0.0.1", owner="w-5d5f", image="", node="somewhere", **annotations):
        metadata = {"name": name, "namespace": self.namespace, **self._template["metadata"]}
        made_by = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": owner, "uid": making.UID, "controller": True}
        metadata["ownerReferences"] = [made_by] if owner else []
        spec = {**copy.deepcopy(self._template["spec"]), "nodeName": node}
        spec["containers"][0]["image"] = image or spec["containers"][0]["image"]
        metadata["annotations"] = {**metadata.get("annotations", {}), **annotations}
        self.cluster.create(clusters.POD, {"metadata": metadata, "spec": spec})
        self.report(name, podIP=address, podIPs=[{"ip": address}], phase="Running")

    def drop(self, name):
        """Its ReplicaSet lets it end."""
        self.cluster.delete(clusters.POD, name, self.namespace)

    def report(self, name="p", **status):
        self.cluster.patch(clusters.POD, name, self.namespace, {"status": status}, subresource="status")

    def crash(self, word, *, at="2026-01-01T00:00:01Z", state="state", name="p"):
        """The server's container ends with this as its word."""
        end = {"terminated": {"exitCode": 20, "reason": "Error", "message": word, "finishedAt": at}}
        container = {"name": "serving", "image": "i", "imageID": "", "ready": False, "restartCount": 1}
        running = {"state": {"running": {"startedAt": at}}} if state == "lastState" else {}
        self.report(name, containerStatuses=[{**container, **running, state: end}])

    def settle(self, *, ready=1, replicas=1, updated=None, generation=None):
        """What the Deployment controller counts."""
        found = self.cluster.get(clusters.DEPLOYMENT, "w", self.namespace)
        status = {
            "observedGeneration": found["metadata"]["generation"] if generation is None else generation,
            "replicas": replicas,
            "updatedReplicas": replicas if updated is None else updated,
            "readyReplicas": ready,
            "availableReplicas": ready,
        }
        self._count(status)

    def fail(self, condition):
        """The Deployment controller cannot make pods."""
        self._count({"conditions": [condition]})

    def _count(self, status):
        self.cluster.patch(clusters.DEPLOYMENT, "w", self.namespace, {"status": status}, subresource="status")


@pytest.fixture
def served():
    return Served()


@pytest.fixture
def rolled(cluster, apply, settings, served):
    """A roll-out of one replica with one adapter."""
    workspace = making.edited(making.inference(), inference={**making.inference()["inference"], "adapters": ADAPTERS})
    with rolled_out(cluster, apply(workspace), settings, served) as playing:
        yield playing


@contextlib.contextmanager
def rolled_out(cluster, stored, settings, served):
    """A Workspace's server, rolled out; what answers is on this machine."""
    parsed = Workspace.parse(stored)
    with answers(served) as port, concurrent.futures.ThreadPoolExecutor() as pool:
        server = dataclasses.replace(asks.serving.expected(parsed, settings), port=port)
        playing = Rollout(Run(cluster, parsed, settings, None), server, pool)
        playing.apply()
        yield playing


def roll_out(cluster, stored, settings):
    """What the step does, and one replica that is ready at once."""
    workspace = Workspace.parse(stored)
    run = Run(cluster, workspace, settings, None)
    rollout.apply(run, asks.serving.expected(workspace, settings), nodes.Placement(labels={"a": "b"}))
    ready = {"status": {"replicas": 1, "readyReplicas": 1}}
    cluster.patch(clusters.DEPLOYMENT, "w", workspace.metadata.namespace, ready, subresource="status")


def pending(waiting, capsys, words):
    """It waits, and says for what."""
    until(lambda: words in capsys.readouterr().out, what=words, seconds=10)
    assert not waiting.done()
