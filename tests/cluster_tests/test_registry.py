import hashlib
import json

import pytest

from tests.cluster import layout, registry


def put(store, content):
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    path = registry.blob(store, digest)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return {"digest": digest, "size": len(content)}


def push(store, repository, tag, layers):
    manifest = {"schemaVersion": 2, "config": put(store, b"{}"), "layers": [put(store, layer) for layer in layers]}
    digest = put(store, json.dumps(manifest).encode())["digest"]
    link = store / registry.STORE / "repositories" / repository / "_manifests/tags" / tag / "current/link"
    registry.write_link(link, digest)
    return digest


@pytest.mark.parametrize("image", ["kaito.azurecr.io/a", "docker.io/a:1", "a:1", "kaito.azurecr.io/:1"])
def test_other_names_are_refused(image):
    with pytest.raises(layout.ClusterError, match=r"NAME\.azurecr\.io/REPOSITORY:TAG"):
        registry.split(image)


def test_host_does_not_matter():
    assert registry.split("a.azurecr.io/x/y:1") == registry.split("b.azurecr.io/x/y:1") == ("x/y", "1")


def test_kept_images_come_back_and_others_do_not(cluster):
    kept = push(cluster.registry, "x/serving", "1", [b"heavy", b"light"])
    push(cluster.registry, "adapters", "1", [b"weights"])
    registry.keep(cluster, ["kaito.azurecr.io/x/serving:1"])
    layout.remove(cluster.registry)
    registry.restore(cluster)
    assert registry.manifest_digest(cluster, "kaito.azurecr.io/x/serving:1") == kept
    with pytest.raises(layout.ClusterError, match="push it first"):
        registry.manifest_digest(cluster, "kaito.azurecr.io/adapters:1")
    blobs = {path.read_bytes() for path in cluster.registry.rglob("data")}
    assert {b"heavy", b"light"} <= blobs
    assert b"weights" not in blobs


def test_keeping_shares_the_disk(cluster):
    push(cluster.registry, "serving", "1", [b"heavy"])
    registry.keep(cluster, ["kaito.azurecr.io/serving:1"])
    digest = put(cluster.registry.with_name("other"), b"heavy")["digest"]
    assert registry.blob(cluster.registry, digest).stat().st_nlink == 2


def test_newer_tag_replaces_what_was_kept(cluster):
    push(cluster.registry, "serving", "dev", [b"old"])
    registry.keep(cluster, ["kaito.azurecr.io/serving:dev"])
    newer = push(cluster.registry, "serving", "dev", [b"new"])
    registry.keep(cluster, ["kaito.azurecr.io/serving:dev"])
    layout.remove(cluster.registry)
    registry.restore(cluster)
    assert registry.manifest_digest(cluster, "kaito.azurecr.io/serving:dev") == newer
    assert b"old" not in {path.read_bytes() for path in (layout.cache() / "registry").rglob("data")}
    assert b"old" not in {path.read_bytes() for path in cluster.registry.rglob("data")}


def test_only_what_is_asked_for_stays_kept(cluster):
    for name in ("a", "b", "c"):
        push(cluster.registry, name, "1", [name.encode()])
    registry.keep(cluster, ["kaito.azurecr.io/a:1", "kaito.azurecr.io/b:1"])
    registry.keep(cluster, ["kaito.azurecr.io/c:1"], besides=["kaito.azurecr.io/a:1"])
    layout.remove(cluster.registry)
    registry.restore(cluster)
    assert {path.read_bytes() for path in cluster.registry.rglob("data")} >= {b"a", b"c"}
    assert b"b" not in {path.read_bytes() for path in cluster.registry.rglob("data")}
