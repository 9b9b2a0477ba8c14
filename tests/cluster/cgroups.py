"""A cgroup for each node: several kubelets on one machine delete each other's pods unless each has a root of its own.

Works on version 1 (one hierarchy per controller) and, untried, on version 2 (one for all).
"""

import contextlib
import os
import time
from pathlib import Path

from tests.cluster import layout

_CONTROLLERS = ("cpu", "cpuset", "io", "memory", "pids", "hugetlb")


def ensure(cluster: layout.Cluster, node: str) -> str:
    """Make the node's cgroup in every hierarchy; returns what the kubelet's cgroupRoot has to be."""
    for mount in _mounts():
        folder = mount
        for part in (cluster.cgroup, node):
            _delegate(folder)
            folder /= part
            folder.mkdir(exist_ok=True)
            _inherit_cpuset(folder)
        _delegate(folder)
    return f"/{cluster.cgroup}/{node}"


def remove(cluster: layout.Cluster, node: str = "") -> None:
    """Remove a node's cgroups, or all of the cluster's; the processes in them have ended or are about to."""
    deadline = time.monotonic() + 10
    while folders := [folder for mount in _mounts() if (folder := mount / cluster.cgroup / node).is_dir()]:
        for folder in folders:
            for path, _, _ in os.walk(folder, topdown=False):
                with contextlib.suppress(OSError):  # busy for the instant in which its last process disappears
                    Path(path).rmdir()
        if time.monotonic() > deadline:
            raise TimeoutError(f"cgroups {', '.join(map(str, folders))} still hold processes: see their cgroup.procs")
        time.sleep(0.02)


def left(cluster: layout.Cluster) -> list[str]:
    """Cgroups of this cluster that exist, for the check after `down`."""
    return [str(folder) for mount in _mounts() if (folder := mount / cluster.cgroup).exists()]


def _mounts() -> list[Path]:
    lines = (line.split() for line in Path("/proc/self/mounts").read_text().splitlines())
    return [Path(words[1]) for words in lines if words[2] in {"cgroup", "cgroup2"}]


def _inherit_cpuset(folder: Path) -> None:
    """Version 1: a new cpuset is empty, and nothing can run in it."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        here = folder / name
        if here.exists() and not here.read_text().strip() and (there := folder.parent / name).exists():
            here.write_text(there.read_text())


def _delegate(folder: Path) -> None:
    """Version 2: children have the controllers that their parent hands down."""
    if not (folder / "cgroup.subtree_control").exists():
        return
    offered = (folder / "cgroup.controllers").read_text().split()
    for controller in _CONTROLLERS:
        if controller in offered:
            with contextlib.suppress(OSError):  # held by a version 1 hierarchy
                (folder / "cgroup.subtree_control").write_text(f"+{controller}")
