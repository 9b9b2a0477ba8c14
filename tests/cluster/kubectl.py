"""The cluster's own kubectl, run inside its network namespace, where the API server's address always holds."""

import json
import subprocess
from collections.abc import Mapping
from typing import Any

from tests.cluster import build, layout, machines


def run(cluster: layout.Cluster, *arguments: str, stdin: str | None = None) -> str:
    """Standard output; a ClusterError carries what kubectl had to say."""
    done = _run(cluster, arguments, stdin)
    if done.returncode:
        raise layout.ClusterError(f"`kubectl {' '.join(arguments)}` failed: {done.stderr.strip()}")
    return done.stdout


def succeeds(cluster: layout.Cluster, *arguments: str) -> bool:
    return _run(cluster, arguments, None).returncode == 0


def reaches_from_outside(cluster: layout.Cluster) -> bool:
    """The loopback door leads to this cluster's API server, whose certificate the kubeconfig knows."""
    command = [str(build.binary("kubectl")), "--kubeconfig", str(cluster.kubeconfig), "get", "--raw", "/readyz"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def read(cluster: layout.Cluster, *arguments: str) -> Any:
    """The JSON that `kubectl get` prints, or None where the object does not exist."""
    told = run(cluster, "get", *arguments, "--ignore-not-found", "--output=json")
    return json.loads(told) if told.strip() else None


def apply(cluster: layout.Cluster, *objects: Mapping[str, Any]) -> None:
    """Server-side apply: the same objects again change nothing."""
    listing = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
    run(cluster, "apply", *SERVER_SIDE, "--filename=-", stdin=json.dumps(listing))


SERVER_SIDE = ("--server-side", "--force-conflicts", "--field-manager=kaito-hera-cluster")


def _run(cluster: layout.Cluster, arguments: tuple[str, ...], stdin: str | None) -> subprocess.CompletedProcess[str]:
    program = [str(build.binary("kubectl")), "--kubeconfig", str(cluster.inner_kubeconfig), *arguments]
    command = [*machines.Machine(cluster).inside("net"), *program]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
