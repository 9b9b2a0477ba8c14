"""`up` and `down`: the order in which a cluster's parts come and go.

Every part is ensured, none is assumed: a second `up` finds all of it, one that was killed is continued, and `down`
works on whatever half of a cluster there is.
"""

import datetime
import shutil
from pathlib import Path

from tests.cluster import (
    argo,
    build,
    cgroups,
    containerd,
    control_plane,
    dns,
    layout,
    machines,
    network,
    node_image,
    nodes,
    pki,
    prerequisites,
    progress,
    registry,
    world,
)
from tests.cluster.progress import part


def up(cluster: layout.Cluster) -> None:
    """Everything stands when this returns."""
    prerequisites.ensure()
    build.ensure()
    with cluster.lock("lifecycle"):
        with part("certificates"):
            pki.ensure(cluster)
            dns.prepare(cluster)
        with part("network"):
            machines.Machine(cluster).power_on(network.SETUP)
            network.open_doors(cluster)
        with part("API server", "etcd and the first answer to /readyz"):
            control_plane.start(cluster)
            registry.prepare(cluster)
            registry.start(cluster)
            containerd.prepare(cluster)
            control_plane.await_ready(cluster)
            dns.start(cluster)
            dns.publish(cluster)
        with part("node image", "the cluster's own images, unpacked"):
            registry.await_ready(cluster)
            node_image.ensure(cluster)
        with part("outside world", "the simulators, and what they serve"):
            world.start(cluster)
        with part("Argo's manifests", "the API server, which compiles the rules in its CRDs"):
            nodes.boot(cluster, nodes.NodeSpec(nodes.FIRST))
            argo.install(cluster)
        with part(nodes.FIRST, "the kubelet"):
            _await_nodes(cluster)
        with part("Argo", "its two Deployments"):
            argo.await_ready(cluster)
        with part("simulators", "their answer to /healthz"):
            world.await_ready(cluster)


def down(cluster: layout.Cluster) -> None:
    """Nothing of the cluster is left when this returns; the cache stays."""
    if not cluster.state.exists():
        others = ", ".join(other.name for other in layout.clusters()) or "none"
        print(f"no cluster is called {cluster.name}; there are: {others} (make down CLUSTER=NAME)", flush=True)
    with cluster.lock("lifecycle"):
        with part("processes and mounts"):
            machines.Machine(cluster).power_off()
        with part("cgroups and files"):
            cgroups.remove(cluster)
            if cluster.state.exists():
                shutil.rmtree(cluster.state)
            node_image.collect()
        if found := left(cluster):
            raise layout.ClusterError("`down` left these behind:\n  " + "\n  ".join(found))


def prune() -> None:
    """Empty the cache of old programs, kept images and the node image; refused while somebody's cluster uses them."""
    running = [cluster.name for cluster in layout.clusters() if machines.Machine(cluster).on()]
    disks = node_image.users()  # of clusters that are off, or kept in another state folder, too
    if running or disks:
        raise layout.ClusterError(
            f"the cache is in use by {', '.join([*running, *disks])}: `python -m tests.cluster down NAME` first,"
            " or leave the cache alone if the cluster is not yours"
        )
    build.forget_old()
    registry.forget()
    node_image.forget()


def left(cluster: layout.Cluster) -> list[str]:
    """What there is of a cluster on this machine: its state folder, processes, mounts, cgroups."""
    folder = str(cluster.state)
    found = [folder] if cluster.state.exists() else []
    found += [f"cgroup {path}" for path in cgroups.left(cluster)]
    mounts = Path("/proc/mounts").read_text().splitlines()
    found += [f"mount {line.split()[1]}" for line in mounts if f"{folder}/" in line]
    return found + machines.left(cluster)


def _await_nodes(cluster: layout.Cluster) -> None:
    since = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=nodes.LEASE_SECONDS)
    progress.until(
        lambda: nodes.renewed(cluster, nodes.FIRST, since) and nodes.ready(cluster, nodes.FIRST),
        what=f"node {nodes.FIRST} Ready",
        seconds=60,
        hint=f"the kubelet's log is {cluster.log / nodes.FIRST / 'kubelet.log'}",
        pause=0.2,
    )
