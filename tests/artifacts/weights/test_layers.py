"""What is taken out of layers, and what is refused."""

import gzip
import io
import tarfile

import pytest

from artifacts import errors, unpack, upload
from artifacts.manifest import Layer
from artifacts.weights import layers

MODEL = {"config.json": b"{}", "model.safetensors": b"weights"}


@pytest.fixture
def unpacked(tmp_path):
    """Layers unpacked one over the other; each is a dict of paths, or bytes."""

    def all_of(*each, limit=1 << 30):
        files = layers.Files(tmp_path / "own", "IMAGE", limit=limit)
        for layer in each:
            add(files, tmp_path, layer if isinstance(layer, bytes) else tar(layer))
        return files

    return all_of


def add(files, folder, content, *, title=""):
    (folder / "blob").write_bytes(content)
    files.add(folder / "blob", Layer("sha256:of the blob", len(content), title=title))


def tar(members):
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                archive.addfile(info)
            else:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return raw.getvalue()


def under(place, members=MODEL):
    return {f"{place}/{name}": content for name, content in members.items()}


@pytest.mark.parametrize("place", ["models", "weights", "./models", "workspace/tfs/weights", "workspace/weights", "."])
def test_places_where_a_model_may_lie(unpacked, place):
    folder = unpacked({"usr/bin/sh": b"#!"}, under(place)).model()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == MODEL


def test_compressed_layers_and_one_file_a_layer(unpacked):
    packed = [gzip.compress(tar(under("models", {name: content}))) for name, content in MODEL.items()]
    assert len(list(unpacked(*packed).model().iterdir())) == 2


def test_later_layers_win_and_whiteouts_remove(unpacked):
    base = under("models", {**MODEL, "tokenizer.json": b"old", "vocab.json": b"x"})
    later = {"models/.wh.vocab.json": b"", "models/tokenizer.json": b"new"}
    folder = unpacked(base, later).model()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {**MODEL, "tokenizer.json": b"new"}


@pytest.mark.parametrize("gone", ["models/.wh..wh..opq", ".wh.models", ".wh..wh..opq"])
def test_a_folder_that_a_later_layer_removes(unpacked, gone):
    with pytest.raises(errors.Unusable, match=r"no config\.json"):
        unpacked(under("models"), {gone: b""}).model()


def test_files_that_are_layers_themselves(unpacked, tmp_path):
    files = unpacked()
    for name, content in MODEL.items():
        add(files, tmp_path, content, title=name)
    assert {path.name: path.read_bytes() for path in files.model().iterdir()} == MODEL


def test_other_formats_are_named(unpacked):
    files = unpacked(under("workspace/weights", {"config.json": b"{}", "consolidated.00.pth": b"pickle"}))
    with pytest.raises(errors.Unusable, match=r"not loaded: workspace/weights/consolidated\.00\.pth"):
        files.model()


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        ({"models/../../config.json": b"{}"}, "points outside"),
        ({"/models/config.json": b"{}"}, "points outside"),
        ({"models/config.json": "/etc/passwd"}, "no regular file"),
        (b"\x28\xb5\x2f\xfd" + bytes(100), "zstd"),
        (b"no tar at all" * 100, "no readable archive"),
        (gzip.compress(tar({"models/a.json": b"x"}))[:-20], "no readable archive"),
        (tar({"models/a.json": b"x", "x" * (2 << 20): b""}), "headers of more than 1048576 bytes"),
    ],
)
def test_what_is_refused(unpacked, tmp_path, layer, words):
    with pytest.raises(errors.Unusable, match=words):
        unpacked(layer)
    assert not list((tmp_path / "own").rglob("*.json"))


def test_a_layer_that_unpacks_to_much_more_is_refused(unpacked):
    bomb = gzip.compress(tar({"models/x.safetensors": bytes(8 << 20)}))
    with pytest.raises(errors.TooLarge, match="IMAGE: the image when unpacked is larger than 1,048,576 bytes"):
        unpacked(bomb, limit=1 << 20)


def test_what_layers_may_unpack_to():
    assert layers.limit([Layer("", 1000), Layer("", 24)]) == 4096 + unpack.GiB


def test_a_file_with_holes_is_refused(unpacked):
    """A terabyte that takes a block in the archive."""
    pax = {"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.size": str(1 << 40), "GNU.sparse.map": "0,1"}
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("models/x.safetensors")
        info.size, info.pax_headers = 1, pax
        archive.addfile(info, io.BytesIO(b"x"))
    with pytest.raises(errors.Unusable, match="no regular file"):
        unpacked(raw.getvalue())


@pytest.mark.parametrize("link", ["models", "models/config.json"])
def test_a_link_in_the_folder_is_not_followed(unpacked, tmp_path, link):
    outside = tmp_path / "outside"
    outside.mkdir()
    at = tmp_path / "own" / link
    at.parent.mkdir(parents=True)
    at.symlink_to(outside)
    unpacked(under("models"))
    assert list(outside.iterdir()) == []


def test_a_file_above_eight_gib_has_a_header_that_says_so():
    size = 9 << 30
    header = next(upload.single_file("models/a", size, iter(())))
    assert tarfile.TarInfo.frombuf(header, "utf-8", "strict").size == size
    assert (len(header) + size + upload.padding(size)) % 512 == 0
