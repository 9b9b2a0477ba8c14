"""What is taken out of layers, and what is refused."""

import gzip
import io
import tarfile

import pytest

from artifacts.weights import errors, layers

MODEL = {"config.json": b"{}", "model.safetensors": b"weights"}


@pytest.fixture
def unpacked(tmp_path):
    """Layers unpacked one over the other; each is a dict of paths, or bytes."""

    def unpack(*each, title=""):
        files = layers.Files(tmp_path / "own", "IMAGE")
        for number, layer in enumerate(each):
            blob = tmp_path / f"blob-{number}"
            blob.write_bytes(layer if isinstance(layer, bytes) else tar(layer))
            files.add(blob, title=title)
        return files

    return unpack


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


@pytest.mark.parametrize("place", ["models", "weights", "./models", "/workspace/tfs/weights", "workspace/weights", "."])
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
    with pytest.raises(errors.ModelUnusable, match=r"no config\.json"):
        unpacked(under("models"), {gone: b""}).model()


def test_files_that_are_layers_themselves(unpacked, tmp_path):
    files = layers.Files(tmp_path / "own", "IMAGE")
    for name, content in MODEL.items():
        (tmp_path / "blob").write_bytes(content)
        files.add(tmp_path / "blob", title=name)
    assert {path.name: path.read_bytes() for path in files.model().iterdir()} == MODEL


def test_other_formats_are_named(unpacked):
    files = unpacked(under("workspace/weights", {"config.json": b"{}", "consolidated.00.pth": b"pickle"}))
    with pytest.raises(errors.ModelUnusable, match=r"not loaded: workspace/weights/consolidated\.00\.pth"):
        files.model()


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        ({"models/../../config.json": b"{}"}, "points outside"),
        ({"models/config.json": "/etc/passwd"}, "no regular file"),
        (b"\x28\xb5\x2f\xfd" + bytes(100), "zstd"),
        (b"no tar at all" * 100, "no readable archive"),
        (gzip.compress(tar({"models/a.json": b"x"}))[:-20], "no readable archive"),
        (tar({"models/a.json": b"x", "x" * (2 << 20): b""}), "headers of more than 1048576 bytes"),
    ],
)
def test_what_is_refused(unpacked, tmp_path, layer, words):
    with pytest.raises(errors.ModelUnusable, match=words):
        unpacked(layer)
    assert not list((tmp_path / "own").glob("files-*/*.json"))


def test_a_layer_that_unpacks_to_much_more_is_refused(tmp_path):
    (tmp_path / "bomb").write_bytes(gzip.compress(tar({"models/x.safetensors": bytes(8 << 20)})))
    with pytest.raises(errors.ModelUnusable, match="unpacks to more than"):
        layers.Files(tmp_path / "own", "IMAGE", slack=1 << 20).add(tmp_path / "bomb")


def test_a_file_with_holes_is_refused(tmp_path):
    """A terabyte that takes a block in the archive."""
    pax = {"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.size": str(1 << 40), "GNU.sparse.map": "0,1"}
    with tarfile.open(tmp_path / "blob", mode="w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("models/x.safetensors")
        info.size, info.pax_headers = 1, pax
        archive.addfile(info, io.BytesIO(b"x"))
    with pytest.raises(errors.ModelUnusable, match="no regular file"):
        layers.Files(tmp_path / "own", "IMAGE").add(tmp_path / "blob")


def test_a_link_in_the_folder_is_not_followed(unpacked, tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("mine")
    own = tmp_path / "own" / "files-models"
    own.mkdir(parents=True)
    (own / "config.json").symlink_to(outside)
    unpacked(under("models"))
    assert outside.read_text() == "mine"


def test_a_file_above_eight_gib_has_a_header_that_says_so():
    size = 9 << 30
    header = next(layers.single_file("models/a", size, iter(())))
    assert tarfile.TarInfo.frombuf(header, "utf-8", "strict").size == size
    assert (len(header) + size + layers.padding(size)) % 512 == 0
