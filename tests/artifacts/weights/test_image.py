"""Images that hold a model, fetched from real registries over wires that break."""

import contextlib
import hashlib
import io
import re
import shutil
from pathlib import Path

import pytest

from artifacts import errors as kinds
from artifacts import manifest
from artifacts.weights import errors, image, layers, push
from artifacts.weights.config import Model
from tests.artifacts.weights.conftest import WEIGHTS
from tests.serving import registry as images
from tests.tuning import servers
from tests.tuning.conftest import entry, write_secret


class Wire(servers.Files):
    """A registry whose blobs come through here: cut once in the middle, or refused; ranges are honoured."""

    def __init__(self, behind):
        super().__init__()
        self.behind, self.cut, self.refuse = behind, set(), 0

    def answer(self, request):
        request.headers.replace_header("Host", self.host)
        wanted = request.headers["Range"]
        del request.headers["Range"]
        answer = servers.forward(self.behind, request)
        blob = re.search("/blobs/(sha256:.*)", request.path)
        if blob and answer.ok and self.refuse:
            self.reply(request, self.refuse)
        elif blob and answer.ok:
            if wanted:
                request.headers["Range"] = wanted
            first = blob[1] not in self.cut
            self.cut.add(blob[1])
            self.send(request, answer.content, cut_after=len(answer.content) // 2 if first else None)
        else:
            kept = {
                name: answer.headers[name] for name in ("Content-Type", "WWW-Authenticate") if name in answer.headers
            }
            self.reply(request, answer.status_code, answer.content, kept)


@pytest.fixture
def wire(registry):
    with contextlib.closing(Wire(registry)) as between:
        yield between


@pytest.fixture
def pushed(model, files, auth):
    return push.push(model, model.image, folder=files, auth=auth, out=io.StringIO())


@pytest.fixture
def fetched(wire, pushed, tmp_path):
    """The image through the wire, into one and the same scratch folder."""
    auth = write_secret(tmp_path / "wire.json", {wire.host: entry()})
    model = Model(id="acme/tiny", revision="main", image=f"{wire.host}/team/tiny:1")
    return lambda: image.fetch(model, tmp_path / "scratch", auth)


def ranges(wire):
    return [headers["Range"] for _, path, headers in wire.asked if "/blobs/" in path and "Range" in headers]


def test_a_blob_that_was_cut_goes_on_where_it_was(wire, fetched):
    assert (fetched() / "model-00001-of-00002.safetensors").read_bytes() == WEIGHTS
    assert len(wire.cut) == 4
    assert ranges(wire) == ["bytes=1048576-"], "the larger one was cut after a MiB and a half; pieces are a MiB"


def test_a_container_that_was_killed_goes_on_where_it_was(wire, fetched, tmp_path):
    fetched()
    own = next((tmp_path / "scratch").iterdir())
    (own / ".done").write_text("1")
    wire.asked.clear()
    assert (fetched() / "config.json").exists()
    again = {path for _, path, _ in wire.asked if "/blobs/" in path}
    assert len(again) == 3, "the first layer's file is there"
    wire.asked.clear()
    fetched()
    assert not [path for _, path, _ in wire.asked if "/blobs/" in path]


def test_a_part_with_other_bytes_is_not_believed(wire, fetched, tmp_path):
    digest = wire.behind.manifest("team/tiny", "1")["layers"][1]
    wire.refuse = 404
    with pytest.raises(errors.ModelNotFound):
        fetched()
    own = next((tmp_path / "scratch").iterdir())
    (own / "blob-1.part").write_bytes(bytes(digest["size"]))
    wire.refuse = 0
    with pytest.raises(errors.RegistryUnavailable, match="came with other bytes"):
        fetched()
    assert (fetched() / "config.json").exists(), "it is fetched anew then"


def test_an_image_that_is_not_there(registry, auth, tmp_path):
    model = Model(id="acme/tiny", revision="main", image=f"{registry.host}/team/none:1")
    with pytest.raises(errors.ModelNotFound, match=r"s\.image: the registry has no image .*team/none:1: 404"):
        image.fetch(model, tmp_path, auth)


def test_no_password_is_told_with_the_field_for_it(pushed, model, tmp_path):
    with pytest.raises(errors.ImageForbidden) as refused:
        image.fetch(model, tmp_path, tmp_path / "none")
    assert "name a Secret with a password for it" in str(refused.value)
    assert str(refused.value).endswith("in inference.preset.presetOptions.imagePullSecrets")


def test_a_registry_that_is_down_may_come_back(tmp_path):
    model = Model(id="acme/tiny", revision="main", image=f"127.0.0.1:{servers.free_port()}/team/tiny:1")
    with pytest.raises(errors.RegistryUnavailable, match="does not answer") as down:
        image.fetch(model, tmp_path, tmp_path / "none")
    assert down.value.retryable


@pytest.fixture
def built(tmp_path):
    """Images made by other tools, in an open registry."""
    with images.running(tmp_path / "open") as host:

        def build(content):
            images.push(tmp_path / "images", content, f"{host}/a:1")
            return Model(id="acme/tiny", revision="main", image=f"{host}/a:1")

        yield build


def test_an_image_as_docker_builds_it(built, tmp_path):
    model = built(images.docker_image({"config.json": b"{}", "model.safetensors": b"w", "more.bin": b"x"}))
    folder = image.fetch(model, tmp_path / "scratch", Path("none"))
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]


def test_an_image_that_holds_no_model(built, tmp_path):
    model = built(images.docker_image({"adapter_config.json": b"{}", "weights.gguf": b"w"}))
    with pytest.raises(errors.ModelUnusable, match=r"no config\.json .*not loaded: data/weights\.gguf.*model push"):
        image.fetch(model, tmp_path / "scratch", Path("none"))


def test_a_disk_without_room_is_told_before(built, tmp_path):
    model = built(images.docker_image({"config.json": b"{}", "model.safetensors": b"w"}))
    with image.opened(model, Path("none")) as source:
        found = image.inspect(source)
        huge = found._replace(layers=(found.layers[0]._replace(size=1 << 60),))
        with pytest.raises(kinds.MachineTrouble, match=r"needs 2305843009\.2 GB of disk"):
            image._unpacked(source, huge, tmp_path / "own", layers.limit(huge.layers))


def test_what_is_there_already_needs_no_room(built, tmp_path):
    """Of a disk that holds the image once and its largest layer, most is taken by a run that was killed."""
    model = built(images.docker_image({"config.json": b"{}", "model.safetensors": b"w"}))
    own = tmp_path / "own"
    own.mkdir()
    half = shutil.disk_usage(own).free // 4
    with (own / "blob-0.part").open("wb") as part:
        part.truncate(2 * half)  # takes no blocks: what it would take is still free
    with image.opened(model, Path("none")) as source:
        layer = manifest.Layer(DIGEST, 3 * half)
        image._see_room(source, (layer,), 0, own)
        (own / "blob-0.part").rename(own / "blob-0")
        image._see_room(source, (layer,), 0, own)
        (own / "blob-0").unlink()
        with pytest.raises(kinds.MachineTrouble, match="give the node a larger disk"):
            image._see_room(source, (layer,), 0, own)


def test_a_note_without_a_number_is_not_left_by_a_full_disk(fetched, tmp_path):
    fetched()
    own = next((tmp_path / "scratch").iterdir())
    (own / ".done").write_text("1")
    (own / ".done.part").mkdir()  # the next one cannot be written
    with pytest.raises(errors.StorageTrouble):
        fetched()
    assert (own / ".done").read_text() == "1"
    (own / ".done.part").rmdir()
    assert (fetched() / "config.json").exists()


DIGEST = f"sha256:{1:064x}"


@pytest.mark.parametrize("body", ["[]", "no json", '{"layers": []}', '{"manifests": null}'])
def test_a_manifest_that_means_nothing_is_told(body, tmp_path):
    with contextlib.closing(servers.Files()) as server:
        server.files["/v2/a/manifests/1"] = body.encode()
        model = Model(id="acme/tiny", revision="main", image=f"{server.host}/a:1")
        with pytest.raises(errors.ModelUnusable, match=r"^inference.*image: .*a:1 (has|is).*kaito-hera model push"):
            image.fetch(model, tmp_path, Path("none"))


def test_a_layer_that_says_it_is_a_config_and_is_not(tmp_path):
    with contextlib.closing(servers.Files()) as server:
        server.files[f"/v2/a/blobs/{hashed(b'no tar')}"] = b"no tar"
        model = Model(id="acme/tiny", revision="main", image=f"{server.host}/a:1")
        found = manifest.Manifest(DIGEST, (manifest.Layer(hashed(b"no tar"), 6, {image.FILE: "config.json"}),), "")
        with image.opened(model, Path("none")) as source, pytest.raises(kinds.Unusable, match="no readable archive"):
            image.model_config(source, found, tmp_path)


def hashed(content):
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
