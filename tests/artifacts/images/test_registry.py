"""What a manifest may say; how registries are asked is tested where images are pulled."""

import platform

import pytest

from artifacts.images import errors, registry

DIGEST = f"sha256:{1:064x}"
CONFIG = {"mediaType": "application/vnd.oci.image.config.v1+json"}
LAYER = {"digest": DIGEST, "size": 1, "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip"}
ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"


def checked(manifest):
    return registry._checked("reg.io/a:1", manifest, DIGEST, registry.MAX_BYTES)


def test_an_image_is_its_layers():
    assert checked({"config": CONFIG, "layers": [LAYER]}).layers == (registry.Layer(*LAYER.values()),)


@pytest.mark.parametrize(
    ("manifest", "words"),
    [
        ({}, "of no known kind"),
        ({"config": "x"}, "of no known kind"),
        ({"config": ["x"]}, "of no known kind"),
        ({"config": {"mediaType": ["x"]}}, "no container image"),
        ({"config": CONFIG}, "without readable layers"),
        ({"config": CONFIG, "layers": ["x"]}, "without readable layers"),
        ({"config": CONFIG, "layers": [LAYER | {"size": float("inf")}]}, "without readable layers"),
        ({"config": CONFIG, "layers": [LAYER | {"size": -1}]}, "without a sha256 digest"),
        ({"config": CONFIG, "layers": [LAYER, LAYER | {"mediaType": ZSTD}]}, "zstd; build the image with gzip layers"),
    ],
)
def test_a_manifest_that_cannot_be_unpacked_is_told(manifest, words):
    with pytest.raises(errors.ImageUnusable, match=words):
        checked(manifest)


@pytest.mark.parametrize("listed", [None, 1, "x", {}, [], ["x", 1, None], [{"digest": 3, "platform": "linux"}]])
def test_an_index_that_means_nothing_is_told(listed):
    with pytest.raises(errors.ImageUnusable, match="an index without an image"):
        registry._choose({"manifests": listed}, "reg.io/a:1")


def test_the_image_for_this_machine_is_chosen_among_others():
    mine = registry.ARCHITECTURES.get(platform.machine(), platform.machine())
    entries = ["x", {"digest": f"sha256:{2:064x}", "platform": "linux"}]
    chosen = {"digest": DIGEST, "platform": {"architecture": mine}}
    assert registry._choose({"manifests": [*entries, chosen]}, "reg.io/a:1") == DIGEST
