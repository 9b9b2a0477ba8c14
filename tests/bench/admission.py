"""What the admission policies add to the creation of a Workspace: `make bench-admission`.

Pairs of the same creates, one on an API server with the policies and one on an API server without them, in turn and
each first half of the time, so that whatever else the machine does falls on both.
"""

import contextlib
import os
import statistics
import time
from pathlib import Path

from kaito_hera import cluster as clusters
from tests import making
from tests.cluster import testing

PAIRS = 2000
BAR = 3.0
"""Milliseconds: the most that the median of the differences may be."""


def main() -> None:
    with contextlib.ExitStack() as stack:
        judged, free = (_connection(stack, policies=policies) for policies in (True, False))
        bodies = [_body(at) for at in range(2)]
        for connection in (judged, free):
            for body in bodies * 50:
                connection.create(clusters.WORKSPACE, body, dry_run=True)
        differences = [_difference(judged, free, bodies[at % 2], first=at % 4 < 2) for at in range(PAIRS)]
    median = statistics.median(differences)
    quarters = statistics.quantiles(differences, n=4)
    print(f"{PAIRS} pairs of creates, with policies and without: median of the difference {median:.2f} ms", end=" ")
    print(f"(quartiles {quarters[0]:.2f} and {quarters[2]:.2f}; at most {BAR:.0f})")
    raise SystemExit(median > BAR)


def _connection(stack: contextlib.ExitStack, *, policies: bool) -> clusters.Cluster:
    kubeconfig = stack.enter_context(testing.apiserver())
    testing.install(kubeconfig)
    if not policies:
        for kind in ("validatingadmissionpolicybindings", "validatingadmissionpolicies"):
            testing.kubectl(kubeconfig, "delete", kind, "--all")
        time.sleep(3)  # until they are forgotten
    return _connected(kubeconfig)


def _connected(kubeconfig: Path) -> clusters.Cluster:
    os.environ["KUBECONFIG"] = str(kubeconfig)
    return clusters.Cluster.connect()


def _body(at: int) -> clusters.Object:
    """A Workspace as users write it: served with adapters, or tuned."""
    workspace = making.tuning() if at else making.inference()
    if not at:
        source = {"name": "style", "image": "team.azurecr.io/style:1"}
        workspace["inference"]["adapters"] = [{"source": source, "strength": "1.0"}]
    return {**workspace, "metadata": {"name": "w", "namespace": "default"}}


def _difference(judged: clusters.Cluster, free: clusters.Cluster, body: clusters.Object, *, first: bool) -> float:
    """Milliseconds that the judged create took longer."""
    if first:
        with_policies, without = _took(judged, body), _took(free, body)
    else:
        without, with_policies = _took(free, body), _took(judged, body)
    return with_policies - without


def _took(connection: clusters.Cluster, body: clusters.Object) -> float:
    began = time.perf_counter()
    connection.create(clusters.WORKSPACE, body, dry_run=True)
    return (time.perf_counter() - began) * 1000


if __name__ == "__main__":
    main()
