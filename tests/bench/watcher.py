"""What the watcher weighs and writes at rest, with ten Workspaces that are under way.

    make bench-watcher

A real API server, no cluster: ten Workspaces get their Workflows, then nothing happens for a minute. The last line is
one JSON object: resident memory, CPU, and the writes that the API server counted, the Lease's apart.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from kaito_hera import cluster as clusters
from tests import making
from tests.cluster import build, testing
from tests.e2e.world import until

ROOT = Path(__file__).parents[2]
COUNT = 10
REST = 60
_WRITES = re.compile(
    r'^apiserver_request_total\{.*,resource="([^"]*)".*verb="(POST|PUT|PATCH|DELETE|APPLY)".*\} (\d+)', re.MULTILINE
)

# What an API server writes to itself: of these the watcher may write none (its ClusterRole).
_OWN = {"endpoints", "tokenreviews", "subjectaccessreviews", "selfsubjectaccessreviews"}


def main():
    with testing.apiserver() as kubeconfig, tempfile.TemporaryDirectory() as folder:
        os.environ["KUBECONFIG"] = str(kubeconfig)
        kubectl = [str(build.binary("kubectl")), "--kubeconfig", str(kubeconfig)]
        testing.install(kubeconfig, argo=True)
        cluster = clusters.Cluster.connect()
        (Path(folder) / "nodeProvider").write_text("byo")
        command = [sys.executable, "-m", "workflows", "watch", "--settings", folder, "--health-port", "0"]
        with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL) as process:
            try:
                measure(cluster, kubectl, process.pid)
            finally:
                process.kill()


def measure(cluster, kubectl, pid):
    for number in range(COUNT):
        workspace = making.inference()
        cluster.create(clusters.WORKSPACE, {**workspace, "metadata": {"name": f"w{number}", "namespace": "default"}})
    until(lambda: len(cluster.items(clusters.WORKFLOW, "kaito-hera")) == COUNT, what=f"{COUNT} Workflows")
    for flow in cluster.items(clusters.WORKFLOW, "kaito-hera"):
        cluster.patch(clusters.WORKFLOW, flow["metadata"]["name"], "kaito-hera", {"status": {"phase": "Running"}})
    time.sleep(10)
    before, ticks = writes(kubectl), cpu(pid)
    time.sleep(REST)
    after = writes(kubectl)
    changed = {kind: after[kind] - before.get(kind, 0) for kind in after if after[kind] != before.get(kind, 0)}
    resident = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
    figures = {
        "workspaces": COUNT,
        "rss_mb": round(resident / 1e6, 1),
        "cpu_percent": round(100 * (cpu(pid) - ticks) / REST, 2),
        "lease_writes": changed.pop("leases", 0),
        "other_writes": sum(changed.values()),
    }
    for kind, count in changed.items():
        print(f"  written: {kind} {count}")
    for name, value in figures.items():
        print(f"  {name:<14} {value}")
    print(json.dumps(figures))


def writes(kubectl):
    """Writes that the API server has answered, by resource; its own book-keeping apart."""
    text = subprocess.run([*kubectl, "get", "--raw", "/metrics"], capture_output=True, text=True, check=True).stdout
    counted = {}
    for resource, _, count in _WRITES.findall(text):
        if resource not in _OWN:
            counted[resource] = counted.get(resource, 0) + int(count)
    return counted


def cpu(pid):
    """Seconds of CPU so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
