"""What a manifest may say; how registries are asked is tested where images are pulled."""

import hashlib
import json
import platform

import pytest

from artifacts import errors, manifest

DIGEST = f"sha256:{1:064x}"
CONFIG = {"mediaType": "application/vnd.oci.image.config.v1+json"}
LAYER = {"digest": DIGEST, "size": 1, "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip"}


def read(*bodies):
    """What is made of these answers, one after the other."""
    texts = iter(body if isinstance(body, bytes) else json.dumps(body).encode() for body in bodies)
    return manifest.read("reg.io/a:1", lambda _version: next(texts))


def test_an_image_is_its_layers():
    found = read({"config": CONFIG, "layers": [LAYER, LAYER | {"annotations": {"k": "v"}}]})
    assert found.layers == (manifest.Layer(DIGEST, 1), manifest.Layer(DIGEST, 1, {"k": "v"}))
    assert (found.bytes, found.config) == (2, CONFIG["mediaType"])


def test_a_layer_that_is_a_file_has_its_name():
    title = {"org.opencontainers.image.title": "config.json"}
    layers = [LAYER | {"annotations": title}, {"digest": DIGEST, "size": 1, "annotations": title}]
    assert [layer.title for layer in read({"config": CONFIG, "layers": layers}).layers] == ["", "config.json"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"no json", "no JSON object"),
        ([], "no JSON object"),
        ({"config": CONFIG}, "without readable layers"),
        ({"config": CONFIG, "layers": []}, "0 layers"),
        ({"config": CONFIG, "layers": [LAYER] * 1001}, "1001 layers"),
        ({"config": CONFIG, "layers": ["x"]}, "without readable layers"),
        ({"config": "x", "layers": [LAYER]}, "without readable layers"),
        ({"config": ["x"], "layers": [LAYER]}, "without readable layers"),
        ({"config": CONFIG, "layers": [LAYER | {"size": float("inf")}]}, "without readable layers"),
        ({"config": CONFIG, "layers": [LAYER | {"annotations": ["x"]}]}, "without readable layers"),
        ({"config": CONFIG, "layers": [LAYER | {"size": -1}]}, "without a sha256 digest"),
        ({"config": CONFIG, "layers": [LAYER | {"digest": "sha256:../../etc"}]}, "without a sha256 digest"),
    ],
)
def test_a_manifest_that_cannot_be_unpacked_is_told(body, words):
    with pytest.raises(errors.Unusable, match=f"^reg.io/a:1 has .*{words}"):
        read(body)


@pytest.mark.parametrize("config", [None, {}, {"mediaType": None}])
def test_what_has_no_config_is_of_no_known_kind(config):
    assert read({"config": config, "layers": [LAYER]}).config == "of no known kind"


@pytest.mark.parametrize(
    "listed", [None, 1, "x", {}, [], ["x", 1, None], [{"digest": 3, "platform": "linux"}], [{"digest": "../../etc"}]]
)
def test_an_index_that_means_nothing_is_told(listed):
    with pytest.raises(errors.Unusable, match="an index without an image"):
        read({"manifests": listed})


def chosen(*entries):
    asked = []
    image = json.dumps({"config": CONFIG, "layers": [LAYER]}).encode()
    digest = f"sha256:{hashlib.sha256(image).hexdigest()}"

    def ask(version):
        asked.append(version)
        listed = [entry | {"digest": digest} if entry.pop("right", False) else entry for entry in entries]
        return image if version else json.dumps({"manifests": listed}).encode()

    return manifest.read("reg.io/a:1", ask).digest == digest == asked[1]


MACHINE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


def test_the_image_for_this_machine_is_chosen_among_others():
    other = {"digest": f"sha256:{2:064x}", "platform": {"os": "linux", "architecture": "s390x"}}
    assert chosen(other, {"right": True, "platform": {"os": "linux", "architecture": MACHINE}})
    assert chosen(other | {"platform": "linux"}, {"right": True, "platform": {"architecture": MACHINE}})


def test_a_builders_notes_are_no_image():
    notes = {"digest": f"sha256:{2:064x}", "platform": {"os": "unknown", "architecture": "unknown"}}
    assert chosen(notes, {"right": True, "platform": {"os": "linux", "architecture": "s390x"}})


def test_another_image_than_the_index_says_is_not_believed():
    with pytest.raises(errors.Away, match="sent another manifest"):
        read({"manifests": [{"digest": DIGEST}]}, {"config": CONFIG, "layers": [LAYER]})
