"""Adapter images of all makers, read by us and as KAITO reads them, which its image specification describes."""

import gzip
import json
import os
import subprocess
import sys

import pyarrow
import pytest

from tests.serving import registry as hub
from tests.tuning.conftest import ROOT
from tuning.output import carry, image, volume

FILES = {"adapter_config.json": b"{}", "adapter_model.safetensors": b"weights"}


def kaito_pull(reference, target, folder):
    """Each layer, decompressed, unpacked over those before; then /data is moved to where it is to be."""
    layout, tree = folder / "layout", folder / "tree"
    tree.mkdir(parents=True)
    copy = ["skopeo", "--insecure-policy", "copy", "--quiet", "--src-tls-verify=false", "--dest-decompress"]
    environment = os.environ | {"TMPDIR": str(folder)}
    subprocess.run([*copy, f"docker://{reference}", f"dir:{layout}"], check=True, env=environment)
    asked = ["skopeo", "inspect", "--format", "{{ range .Layers }}{{ . }} {{ end }}", f"dir:{layout}"]
    layers = subprocess.run(asked, check=True, capture_output=True, text=True).stdout.split()
    for layer in layers:
        subprocess.run(["tar", "-x", "-f", layout / layer.removeprefix("sha256:"), "-C", tree], check=True)
    subprocess.run(["mv", "-f", tree / "data", target], check=True)
    return read(target)


def our_pull(reference, target, folder):
    carry.pull(reference, target, folder / "no-password.json")
    return read(target)


def read(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    root = tmp_path_factory.mktemp("eras")
    with hub.running(root / "registry") as host, pytest.MonkeyPatch.context() as patch:
        for name, value in hub.plain_http(root, host).items():
            patch.setenv(name, value)
        yield host


def ours(tmp_path):
    """As a run makes it: the adapter in one layer, what tells of it in another."""
    told = dict.fromkeys((*volume.TOLD, volume.CARD), b"told")
    paths = {}
    for name, content in {**FILES, **told}.items():
        paths[name] = tmp_path / name
        paths[name].write_bytes(content)
    card = {name: paths.pop(name) for name in told}
    packed = image.write(tmp_path / "ours", paths, {}, card=card)
    blob = packed.layout / "blobs" / "sha256"
    manifest = (blob / packed.digest.removeprefix("sha256:")).read_bytes()
    others = [path.read_bytes() for path in sorted(blob.iterdir()) if path.read_bytes() != manifest]
    return (manifest, others), {**FILES, **told}


def packed(manifest_and_blobs, how, suffix=""):
    """The same image with layers that are compressed in another way."""
    manifest, (config, *blobs) = json.loads(manifest_and_blobs[0]), manifest_and_blobs[1]
    others = [how(gzip.decompress(blob)) for blob in blobs]
    for layer, other in zip(manifest["layers"], others, strict=True):
        kind = layer["mediaType"].removesuffix("+gzip").removesuffix(".gzip") + suffix
        layer |= {"mediaType": kind, "digest": hub._digest(other), "size": len(other)}
    return json.dumps(manifest).encode(), [config, *others]


ERAS = {
    "a run of ours": ours,
    "KAITO's pusher": lambda _: (hub.kaito_image(FILES), FILES),
    "docker build, schema 2, a layer each": lambda _: (hub.docker_image(FILES), FILES),
    "docker build with more beside": lambda _: (hub.docker_image({**FILES, "x.md": b"x"}), {**FILES, "x.md": b"x"}),
    "layers that are not compressed": lambda _: (packed(hub.kaito_image(FILES), bytes), FILES),
    "layers of zstd, as buildah and containerd make them": lambda _: (
        packed(hub.kaito_image(FILES), lambda tar: pyarrow.compress(tar, "zstd", asbytes=True), "+zstd"),
        FILES,
    ),
}


@pytest.mark.parametrize("pull", [kaito_pull, our_pull])
@pytest.mark.parametrize("era", ERAS)
def test_an_adapter_is_read_whoever_made_it(host, tmp_path, era, pull):
    made, files = ERAS[era](tmp_path)
    reference = f"{host}/team/{hub._digest(era.encode())[7:19]}:1"
    hub.push(tmp_path, made, reference)
    assert pull(reference, tmp_path / "target", tmp_path / "work") == files


def test_an_index_of_several_machines_is_read(host, tmp_path):
    manifest, _ = hub.kaito_image(FILES)
    digest = hub.push(tmp_path, hub.kaito_image(FILES), f"{host}/team/index:one")
    machines = [{"os": "linux", "architecture": machine} for machine in ("amd64", "arm64")]
    hub.push_index(f"{host}/team/index:1", [(digest, len(manifest), machine) for machine in machines])
    assert kaito_pull(f"{host}/team/index:1", tmp_path / "theirs", tmp_path / "work") == FILES
    assert our_pull(f"{host}/team/index:1", tmp_path / "ours", tmp_path / "work") == FILES


def test_a_folder_pushed_by_hand_is_an_adapter_for_kaito(host, tmp_path):
    (tmp_path / "adapter").mkdir()
    for name, content in FILES.items():
        (tmp_path / "adapter" / name).write_bytes(content)
    command = [sys.executable, "-m", "tuning", "push", tmp_path / "adapter", f"{host}/team/hand:1"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, env=os.environ)
    assert kaito_pull(f"{host}/team/hand:1", tmp_path / "theirs", tmp_path / "work") == FILES
