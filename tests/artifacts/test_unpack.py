"""Layers from hands that nobody vouches for."""

import gzip
import hashlib
import io
import subprocess
import sys
import tarfile
from pathlib import Path

import pyarrow
import pytest

from artifacts import errors, unpack
from artifacts.manifest import Layer

ROOT = Path(__file__).parents[2]
CONFIG = ("data/adapter_config.json", b"{}")
WEIGHTS = ("data/adapter_model.safetensors", b"weights")


def member(name, kind=tarfile.REGTYPE, *, link="", size=0):
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, size
    return info


def archive(*members):
    """A tar of (name, content) pairs and of TarInfo without content."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for each in members:
            if isinstance(each, tarfile.TarInfo):
                tar.addfile(each)
            else:
                tar.addfile(member(each[0], size=len(each[1])), io.BytesIO(each[1]))
    return raw.getvalue()


def store(folder, *blobs):
    folder.mkdir(exist_ok=True)
    layers = []
    for blob in blobs:
        digest = hashlib.sha256(blob).hexdigest()
        (folder / digest).write_bytes(blob)
        layers.append(Layer(f"sha256:{digest}", len(blob)))
    return tuple(layers)


WANTED = {CONFIG[0]: 1 << 20, WEIGHTS[0]: 1 << 20, "data/chat_template.jinja": 1 << 20}.get


def below_data(path):
    return 1 << 20 if path.startswith("data/") else None


def unpacked(tmp_path, *blobs, cap=WANTED, limit=unpack.MAX_UNPACKED):
    layers = store(tmp_path / "blobs", *blobs)
    odd = unpack.unpack(tmp_path / "blobs", layers, tmp_path / "out", cap, limit=limit)
    assert [each.name for each in tmp_path.iterdir() if each.name not in ("blobs", "outside")] == ["out"]
    out = tmp_path / "out"
    found = {file.relative_to(out).as_posix().removeprefix("data/"): file.read_bytes() for file in _files(out)}
    return found | dict.fromkeys(odd, "odd")


def _files(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def test_kaitos_layout_one_gzip_layer(tmp_path):
    blob = gzip.compress(archive(member("data/", tarfile.DIRTYPE), CONFIG, WEIGHTS))
    assert unpacked(tmp_path, blob) == {"adapter_config.json": b"{}", "adapter_model.safetensors": b"weights"}


def test_dockers_layout_with_a_base_system_below_and_plain_tar(tmp_path):
    base = archive(
        member("bin/", tarfile.DIRTYPE),
        member("bin/sh", tarfile.SYMTYPE, link="/bin/busybox"),
        member("bin/ls", tarfile.LNKTYPE, link="bin/sh"),
        member("dev/null", tarfile.CHRTYPE),
    )
    data = gzip.compress(archive(("./data/adapter_config.json", b"{}"), WEIGHTS, ("data/README.md", b"read me")))
    assert sorted(unpacked(tmp_path, base, data)) == ["adapter_config.json", "adapter_model.safetensors"]


def zstd(content):
    return pyarrow.compress(content, "zstd", asbytes=True)


def test_layers_compressed_with_zstd(tmp_path):
    weights = ("data/adapter_model.safetensors", b"weights" * (1 << 15))
    assert unpacked(tmp_path, zstd(archive(CONFIG)), zstd(archive(weights)[:1024]) + zstd(archive(weights)[1024:])) == {
        "adapter_config.json": b"{}",
        "adapter_model.safetensors": weights[1],
    }


def test_a_bomb_of_zstd_is_stopped(tmp_path):
    with pytest.raises(errors.TooLarge, match="larger than 1,048,576 bytes"):
        unpacked(tmp_path, zstd(archive(CONFIG) + bytes(64 << 20)), limit=1 << 20)


def test_where_zstd_cannot_be_read_that_is_said(tmp_path):
    (layer,) = store(tmp_path, zstd(archive(CONFIG)))
    code = f"""
import pathlib, sys
sys.modules["pyarrow"] = None
from artifacts import errors, manifest, unpack
try:
    unpack.unpack(pathlib.Path({str(tmp_path)!r}), [manifest.Layer(*{layer[:2]!r})], pathlib.Path("out"), {{}}.get)
except errors.Unusable as error:
    print(error)
"""
    told = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert "is compressed with zstd, which takes pyarrow to read; install it, or build the image with" in told


def test_chat_template_comes_along(tmp_path):
    blob = archive(CONFIG, WEIGHTS, ("data/chat_template.jinja", b"{{ x }}"))
    assert unpacked(tmp_path, blob)["chat_template.jinja"] == b"{{ x }}"


def test_later_layers_win_and_whiteouts_remove(tmp_path):
    first = archive(CONFIG, WEIGHTS, ("data/chat_template.jinja", b"old"))
    second = archive(("data/adapter_model.safetensors", b"newer"), ("data/.wh.chat_template.jinja", b""))
    assert unpacked(tmp_path, first, second) == {"adapter_config.json": b"{}", "adapter_model.safetensors": b"newer"}


@pytest.mark.parametrize("whiteout", ["data/.wh..wh..opq", ".wh.data", ".wh..wh..opq"])
def test_whiteout_of_the_folder_removes_what_lower_layers_had(tmp_path, whiteout):
    first = archive(("data/adapter_config.json", b"old"), ("data/chat_template.jinja", b"old"))
    second = archive((whiteout, b""), CONFIG, WEIGHTS)
    assert unpacked(tmp_path, first, second) == {"adapter_config.json": b"{}", "adapter_model.safetensors": b"weights"}


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_under_wanted_names_are_told_and_never_made(tmp_path, kind):
    odd = member(WEIGHTS[0], kind, link="etc/passwd")
    assert unpacked(tmp_path, archive(WEIGHTS), archive(CONFIG, odd)) == {
        "adapter_config.json": b"{}",
        WEIGHTS[0]: "odd",
    }


def with_holes(name, size, *, version="0.1"):
    """A file of that size of which the archive has one byte."""
    major, minor = version.split(".")
    pax = {"GNU.sparse.major": major, "GNU.sparse.minor": minor, "GNU.sparse.name": name}
    info = member(name, size=1)
    old = {"GNU.sparse.size": str(size), "GNU.sparse.map": "0,1"}
    info.pax_headers = pax | (old if version == "0.1" else {"GNU.sparse.realsize": str(size)})
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as made:
        made.addfile(info, io.BytesIO(b"x"))
    return raw.getvalue()


def test_a_file_with_holes_is_told_and_never_made(tmp_path):
    layers = (archive(CONFIG), with_holes(WEIGHTS[0], 1 << 19))
    assert unpacked(tmp_path, *layers) == {"adapter_config.json": b"{}", WEIGHTS[0]: "odd"}


def header(kind, size):
    """One header that says that so many bytes follow, and none of them."""
    return member("x", kind, size=size).tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize(
    ("blob", "reason"),
    [
        pytest.param(header(tarfile.GNUTYPE_LONGNAME, 2 << 20), "headers of more", id="name"),
        pytest.param(header(tarfile.GNUTYPE_LONGLINK, 2 << 20), "headers of more", id="link"),
        pytest.param(header(tarfile.XHDTYPE, 2 << 20), "headers of more", id="extended"),
        pytest.param(header(tarfile.XGLTYPE, 2 << 20), "headers of more", id="of all"),
        pytest.param(header(tarfile.SOLARIS_XHDTYPE, 2 << 20), "headers of more", id="solaris"),
        pytest.param(header(tarfile.XHDTYPE, 0) * 2000, "16 before one file", id="row"),
        pytest.param(header(tarfile.GNUTYPE_SPARSE, 0)[:482] + b"\1" + bytes(1000), "", id="holes"),
        pytest.param(with_holes(WEIGHTS[0], 5, version="1.0"), "with holes", id="new holes"),
    ],
)
def test_headers_that_want_much_memory_are_refused(tmp_path, blob, reason):
    with pytest.raises(errors.Unusable, match=f"no readable archive: .*{reason}"):
        unpacked(tmp_path, blob + archive(CONFIG, WEIGHTS))


def test_headers_for_the_whole_archive_are_counted_together(tmp_path):
    said = b"600000 k=" + b"x" * (600_000 - 10) + b"\n"
    one = header(tarfile.XGLTYPE, len(said)) + said + bytes(-len(said) % 512)
    piece = one + archive(CONFIG)[:1024]
    with pytest.raises(errors.Unusable, match="headers of more"):
        unpacked(tmp_path, piece + piece + bytes(1024))


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        pytest.param([CONFIG, member("data/../data/x")], "points outside of it", id="dots"),
        pytest.param([CONFIG, ("../../evil", b"x")], "points outside of it", id="dots at the front"),
        pytest.param([CONFIG, ("/data/adapter_model.safetensors", b"x")], "points outside of it", id="absolute"),
        pytest.param([("data/adapter_config.json", b" " * (1 << 21))], "1048576 are allowed", id="large"),
        pytest.param([("data/x", b""), ("data/x/y", b"")], "/data/x as a file and as a folder", id="both"),
        pytest.param([("data/" + 300 * "x", b"")], "a name of 305 characters", id="name"),
        pytest.param([("data/" + 500 * "x/" + "x", b"")], "a name of 1006 characters", id="deep"),
        pytest.param([CONFIG, ("data/.wh...", b"")], "a whiteout named '.wh...'", id="whiteout of the folder above"),
        pytest.param([CONFIG, (".wh...", b"")], "a whiteout named '.wh...'", id="whiteout of the folder outside"),
        pytest.param([CONFIG, ("data/.wh..", b"")], "a whiteout named '.wh..'", id="whiteout of the folder itself"),
        pytest.param([CONFIG, ("data/.wh.", b"")], "a whiteout named '.wh.'", id="whiteout of nothing"),
        pytest.param([member("data", tarfile.SYMTYPE, link="/etc")], "/data in the image is not a folder", id="link"),
    ],
)
def test_hostile_images_are_refused(tmp_path, members, reason):
    with pytest.raises(errors.Unusable, match=reason):
        unpacked(tmp_path, gzip.compress(archive(*members)), cap=below_data)


def test_folders_are_kept_and_a_later_file_takes_a_folders_place(tmp_path):
    first = archive(("data/a/1.csv", b"1"), ("data/a/2.csv", b"2"), ("data/b", b"b"), ("top.csv", b"t"))
    second = archive(("data/a", b"a"), ("data/b/1.csv", b"b1"))
    assert unpacked(tmp_path, first, second, cap=below_data) == {"a": b"a", "b/1.csv": b"b1"}


def test_more_files_than_are_allowed_are_refused(tmp_path):
    many = archive(*[(f"data/{number}", b"") for number in range(unpack.MAX_FILES + 1)])
    with pytest.raises(errors.Unusable, match="more than 10000 files"):
        unpacked(tmp_path, many, cap=below_data)


def test_link_beside_the_wanted_names_leads_nowhere(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    link = member("data/l", tarfile.SYMTYPE, link=str(outside))
    blob = archive(link, ("data/l/adapter_config.json", b"evil"), CONFIG, WEIGHTS)
    assert sorted(unpacked(tmp_path, blob)) == ["adapter_config.json", "adapter_model.safetensors"]
    assert list(outside.iterdir()) == []


def test_bomb_is_stopped(tmp_path):
    bomb = gzip.compress(archive(CONFIG, WEIGHTS, ("data/zeros", bytes(20 << 20))))
    assert len(bomb) < 1 << 16
    with pytest.raises(errors.Unusable, match="the image when unpacked is larger than 1,048,576 bytes"):
        unpacked(tmp_path, bomb, limit=1 << 20)


def test_a_file_larger_than_the_rest_of_the_image_may_be_is_refused_unread(tmp_path):
    said = archive(CONFIG)[:1024] + member(WEIGHTS[0], size=1 << 20).tobuf()
    with pytest.raises(errors.Unusable, match="the image when unpacked is larger than 65,536 bytes"):
        unpacked(tmp_path, said, limit=1 << 16)


def test_bomb_after_the_end_of_the_archive_is_stopped(tmp_path):
    bomb = gzip.compress(archive(CONFIG, WEIGHTS) + bytes(20 << 20))
    with pytest.raises(errors.Unusable, match="is larger than"):
        unpacked(tmp_path, bomb, limit=1 << 20)


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(b"this is not a tar" * 100, id="text"),
        pytest.param(gzip.compress(archive(CONFIG, WEIGHTS))[:-20], id="cut"),
        pytest.param(b"\x28\xb5\x2f\xfd" + bytes(100), id="no zstd"),
        pytest.param(pyarrow.compress(archive(CONFIG), "zstd", asbytes=True)[:-9], id="cut zstd"),
        pytest.param(archive(CONFIG, ("data/adapter_model.safetensors", bytes(5000)))[:3000], id="cut tar"),
    ],
)
def test_what_is_no_archive_is_refused(tmp_path, broken):
    with pytest.raises(errors.Unusable, match="layer sha256:"):
        unpacked(tmp_path, broken)


@pytest.mark.timeout(60)
def test_an_archive_that_claims_more_than_a_disk_could_hold_is_not_read_for_ever(tmp_path):
    claims = bytearray(header(tarfile.REGTYPE, 0))
    claims[124:136] = b"\x80" + b"\x7f" * 11
    claims[148:156] = b" " * 8
    claims[148:156] = b"%06o\0 " % sum(claims)
    with pytest.raises(errors.Unusable, match="ends before its last file does"):
        unpacked(tmp_path, archive(CONFIG, WEIGHTS)[:2048] + bytes(claims))


def test_flipped_byte_is_noticed(tmp_path):
    good = archive(CONFIG, WEIGHTS)
    layers = store(tmp_path / "blobs", good)
    bad = good.replace(b"weights", b"wEights")
    (tmp_path / "blobs" / layers[0].digest.removeprefix("sha256:")).write_bytes(bad)
    with pytest.raises(errors.Unusable, match="does not have the digest and size"):
        unpack.unpack(tmp_path / "blobs", layers, tmp_path / "out", WANTED)


def test_blob_that_is_longer_than_the_manifest_says_is_refused(tmp_path):
    (layer,) = store(tmp_path / "blobs", archive(CONFIG, WEIGHTS))
    with pytest.raises(errors.Unusable, match="is larger than"):
        unpack.unpack(tmp_path / "blobs", (Layer(layer.digest, 100),), tmp_path / "out", WANTED)
