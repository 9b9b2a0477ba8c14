import json
import socket

import pytest

from tests.cluster import layout


@pytest.mark.parametrize("name", ["", "Demo", "0", "a b", "a/b", "x" * 21])
def test_unusable_name_is_refused(name):
    with pytest.raises(layout.ClusterError, match="not usable"):
        layout.Cluster(name)


def test_state_below_what_nodes_cover_is_refused(monkeypatch):
    monkeypatch.setenv("KAITO_HERA_STATE", "/var/lib/ci")
    with pytest.raises(layout.ClusterError, match="KAITO_HERA_STATE=/var/lib/ci"):
        _ = layout.Cluster("demo").state


def test_clusters_get_ports_of_their_own():
    one, two = layout.Cluster("one"), layout.Cluster("two")
    assert len({one.api_port, one.argo_port, two.api_port, two.argo_port}) == 4


def test_ports_stay_for_a_clusters_life():
    first = layout.Cluster("demo").api_port
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", first))
        assert layout.Cluster("demo").api_port == first


def test_taken_port_is_passed_over():
    cluster = layout.Cluster("demo")
    wished = cluster.api_port
    (cluster.state / "ports.json").unlink()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", wished))
        taken.listen()
        assert layout.Cluster("demo").api_port == wished + 2


def test_replace_leaves_an_equal_file_alone(tmp_path):
    path = tmp_path / "file"
    layout.replace(path, "same")
    before = path.stat().st_ino
    layout.replace(path, "same")
    assert path.stat().st_ino == before
    layout.replace(path, "other", mode=0o600)
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("other", 0o600)
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


def test_ports_file_reads_as_json():
    cluster = layout.Cluster("demo")
    assert cluster.argo_port == json.loads((cluster.state / "ports.json").read_text())["argo"]


def test_clusters_of_one_name_in_two_folders_share_no_cgroup_and_no_lock(tmp_path, monkeypatch):
    here = layout.Cluster("demo")
    cgroup, unique = here.cgroup, here.unique
    monkeypatch.setenv("KAITO_HERA_STATE", str(tmp_path / "elsewhere"))
    there = layout.Cluster("demo")
    assert there.cgroup != cgroup
    with here.lock("lifecycle"), there.lock("lifecycle"):
        assert len(list((layout.cache() / "locks").iterdir())) == 2
    assert unique.startswith("demo-")


def test_a_cluster_in_the_usual_folder_goes_by_its_name_alone(monkeypatch):
    monkeypatch.delenv("KAITO_HERA_STATE")
    assert layout.Cluster("demo").cgroup == "kaito-hera-demo"
