import contextlib
import subprocess
import sys

import pytest

from tests.cluster import layout, lifecycle, machines


@contextlib.contextmanager
def asleep(*arguments, **environment):
    command = [sys.executable, "-ISc", "import time; print(flush=True); time.sleep(600)", *arguments]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout.readline(), "it began: its environment can be read"
            yield process.pid
        finally:
            process.kill()


def test_cache_that_a_node_uses_is_not_pruned(tmp_path):
    generation = layout.cache() / "node-image" / "1"
    disk = tmp_path / "elsewhere" / "node-0"
    disk.mkdir(parents=True)
    (generation / "users").mkdir(parents=True)
    (generation / "users" / "a").symlink_to(disk)
    with pytest.raises(layout.ClusterError, match=f"in use by {disk}"):
        lifecycle.prune()
    disk.rmdir()
    lifecycle.prune()
    assert not generation.exists()


def test_machines_and_daemons_are_left_behind_and_a_persons_clients_are_not():
    cluster = layout.Cluster("demo")
    node = machines.Machine(cluster, "node-0").tag
    other = machines.Machine(layout.Cluster("demo-2")).tag
    with (
        asleep("--kubeconfig", str(cluster.kubeconfig), KUBECONFIG=str(cluster.kubeconfig)),
        asleep(other, KAITO_HERA_DAEMON=f"{other}:etcd"),
        asleep(node) as machine,
        asleep(KAITO_HERA_DAEMON=f"{node}:kubelet") as daemon,
    ):
        found = lifecycle.left(cluster)
        assert sorted(line.split(":")[0] for line in found) == sorted([f"process {machine}", f"process {daemon}"])
    assert lifecycle.left(cluster) == []
