import pytest

from tests.cluster import layout, lifecycle


def test_cache_that_a_node_uses_is_not_pruned(tmp_path, monkeypatch):
    monkeypatch.setenv("KAITO_HERA_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("KAITO_HERA_CACHE", str(tmp_path / "cache"))
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
