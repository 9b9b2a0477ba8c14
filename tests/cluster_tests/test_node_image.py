import fcntl

from tests.cluster import layout, node_image


def test_a_part_that_a_containerd_writes_to_is_not_collected():
    part = layout.cache() / "node-image" / "other.part"
    database = part / "io.containerd.metadata.v1.bolt" / "meta.db"
    database.parent.mkdir(parents=True)
    with database.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # as containerd does
        node_image.collect()
        assert part.exists()
    node_image.collect()
    assert not part.exists()
