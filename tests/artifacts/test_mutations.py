"""Two hundred and more mutated adapter images: nothing is written outside, and all that goes wrong has a name."""

import contextlib
import gzip
import json
import random

import pytest

from artifacts import errors, manifest, unpack
from artifacts.manifest import Layer
from tests.artifacts.test_unpack import CONFIG, WEIGHTS, archive, member, store, zstd

SEEDS = 4
BLOCK = 512
NAMES = [
    *(b"../../evil", b"/etc/evil", b"data/../../evil", b"data", b"data/", b"", b".", b"..", b"\xff\xfe", b"data/\x00x"),
    *(b"data/.wh.adapter_config.json", b".wh.data", b"data/.wh..wh..opq", b".wh...", b"x" * 100, b"data/" + b"y/" * 47),
    *(
        b"data/adapter_config.json/below",
        b"data/adapter_model.safetensors",
        b"C:\\evil",
        b"./data/./adapter_config.json",
    ),
]
LINKS = [b"/etc/passwd", b"../../evil", b"..", b"data", b"data/adapter_config.json", b""]
NUMBERS = [
    b"77777777777",
    b"00000000000",
    b"\x80" + b"\xff" * 11,
    b"\x80" + b"\x7f" * 11,
    b"-0000000001",
    b"9",
    b"\xff" * 12,
]
KINDS = b"01234567LKxgSVDX\x00\xff"
VALUES = [None, -1, 0, 1 << 70, "", "x", [], {}, [None], True, 0.5, "sha256:" + "0" * 64, "../../evil"]


@pytest.fixture
def arena(tmp_path):
    """A folder to unpack in, between things that are nobody's business."""
    (tmp_path / "outside").write_text("as it was")
    (tmp_path / "arena").mkdir()
    return tmp_path / "arena"


@pytest.fixture
def good():
    """An archive with all that a maker may put there."""
    pax = member("data/x" * 30, size=0)
    pax.pax_headers = {"comment": "words", "path": "data/" + "long" * 40}
    return archive(
        member("data/", b"5"), CONFIG, WEIGHTS, pax, ("data/README.md", b"r" * 700), member("bin/sh", b"2", link="x")
    )


def flipped(rng, blob):
    """A few bytes are others."""
    found = bytearray(blob)
    for _ in range(rng.choice([1, 1, 2, 8, 64])):
        found[rng.randrange(len(found))] = rng.randrange(256)
    return bytes(found)


def cut(rng, blob):
    return blob[: rng.randrange(len(blob))]


def spliced(rng, blob):
    """A piece is somewhere else, or there twice."""
    start, end = sorted(rng.randrange(len(blob)) for _ in range(2))
    at = rng.randrange(len(blob))
    return blob[:at] + blob[start:end] + blob[at if rng.random() < 0.5 else min(len(blob), at + end - start) :]


def headed(rng, blob):
    """A header says something else, under a checksum that is right."""
    found = bytearray(blob)
    heads = [at for at in range(0, len(found), BLOCK) if found[at + 257 : at + 262] == b"ustar"]
    for _ in range(rng.choice([1, 2, 3])):
        at = rng.choice(heads)
        start, width, values = rng.choice(
            [
                (0, 100, NAMES),
                (157, 100, LINKS),
                (124, 12, NUMBERS),
                (156, 1, [bytes([kind]) for kind in KINDS]),
                (345, 155, NAMES),
            ]
        )
        found[at + start : at + start + width] = rng.choice(values)[:width].ljust(width, b"\0")
        found[at + 148 : at + 156] = b" " * 8
        found[at + 148 : at + 156] = b"%06o\0 " % sum(found[at : at + BLOCK])
    return bytes(found)


def shuffled(rng, blob):
    """Its blocks are in another order."""
    blocks = [blob[at : at + BLOCK] for at in range(0, len(blob), BLOCK)]
    rng.shuffle(blocks)
    return b"".join(blocks)


def tried(arena, blob):
    """Unpack it, and see that nothing but the wanted files was written, and those below the folder."""
    layers = store(arena / "blobs", blob)
    wanted = {CONFIG[0]: 1 << 20, WEIGHTS[0]: 1 << 20}
    with contextlib.suppress(errors.ArtifactError):
        unpack.unpack(arena / "blobs", layers, arena / "out", wanted.get, limit=1 << 24)
    left = {path.relative_to(arena).as_posix() for path in arena.rglob("*") if path.is_symlink() or not path.is_dir()}
    assert left <= {f"blobs/{layers[0].digest.removeprefix('sha256:')}", *(f"out/{name}" for name in wanted)}
    assert (arena.parent / "outside").read_text() == "as it was"
    assert {path.name for path in arena.parent.iterdir()} == {"outside", "arena"}
    assert not any(path.is_symlink() for path in arena.rglob("*"))


@pytest.mark.parametrize("seed", range(SEEDS * 10))
@pytest.mark.parametrize("mutate", [flipped, cut, spliced, headed, shuffled])
def test_a_mutated_archive(arena, good, mutate, seed):
    rng = random.Random(f"{mutate.__name__} {seed}")
    blob = mutate(rng, good)
    tried(arena, gzip.compress(blob, 1) if seed % 2 else blob)


@pytest.mark.parametrize("seed", range(SEEDS * 10))
@pytest.mark.parametrize("compress", [lambda blob: gzip.compress(blob, 1), zstd], ids=["gzip", "zstd"])
def test_a_mutated_stream(arena, good, seed, compress):
    rng = random.Random(seed)
    tried(arena, rng.choice([flipped, cut, spliced])(rng, compress(good)))


def _places(found, way=()):
    """The ways to all values in a JSON document."""
    yield way
    for key, value in found.items() if isinstance(found, dict) else enumerate(found) if isinstance(found, list) else ():
        yield from _places(value, (*way, key))


@pytest.mark.parametrize("seed", range(SEEDS * 15))
def test_a_mutated_manifest(seed):
    rng = random.Random(seed)
    layer = {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": f"sha256:{'a' * 64}", "size": 9}
    entry = {"mediaType": manifest.TYPE, "digest": f"sha256:{'b' * 64}", "size": 9, "platform": {"os": "linux"}}
    whole = {
        "schemaVersion": 2,
        "config": {"mediaType": manifest.CONFIG},
        "layers": [layer, {**layer, "annotations": {}}],
    }
    found = {"manifests": [entry]} if seed % 4 == 0 else whole
    for _ in range(rng.choice([1, 1, 2])):
        *above, last = rng.choice([way for way in _places(found) if way] or [("x",)])
        parent = found
        for key in above:
            parent = parent[key]
        parent[last] = rng.choice(VALUES)
    text = json.dumps(found).encode()
    body = text if seed % 3 else flipped(rng, text)
    with contextlib.suppress(errors.ArtifactError):
        read = manifest.read("it", lambda digest: json.dumps(whole).encode() if digest else body)
        assert all(
            isinstance(each, Layer) and manifest.is_digest(each.digest) and each.size >= 0 for each in read.layers
        )


def test_what_is_not_mutated_is_read(arena, good):
    layers = store(arena / "blobs", gzip.compress(good))
    unpack.unpack(arena / "blobs", layers, arena / "out", {CONFIG[0]: 99, WEIGHTS[0]: 99}.get)
    assert (arena / "out" / WEIGHTS[0]).read_bytes() == WEIGHTS[1]
