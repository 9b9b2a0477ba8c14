"""Adapter images from a real registry, with skopeo: every era of KAITO, and every way it can go wrong."""

import asyncio
import base64
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from serving import check as serving_check
from serving import errors
from serving import images as adapter_images
from serving.images import Images
from tests import terminations
from tests.serving import registry as hub

SILENT = """
import socket, sys
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
sys.stdin.read()
"""
FILES = {"adapter_config.json": b"{}", "adapter_model.safetensors": b"weights"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("registry")


@pytest.fixture(scope="module")
def public(folder):
    with hub.running(folder / "public") as host:
        yield host


@pytest.fixture(scope="module")
def private(folder):
    with hub.running(folder / "private", private=True) as host:
        yield host


@pytest.fixture(scope="module")
def environment(folder, public, private):
    with pytest.MonkeyPatch.context() as patch:
        for name, value in hub.plain_http(folder, public, private).items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="module")
def images(folder, public, private, environment):
    pushed = {
        "kaito": hub.push(folder, hub.kaito_image(FILES), f"{public}/team/kaito:1"),
        "docker": hub.push(folder, hub.docker_image(FILES), f"{public}/team/docker:1"),
        "artifact": hub.push(folder, hub.artifact(FILES), f"{public}/team/artifact:1"),
        "private": hub.push(folder, hub.kaito_image(FILES), f"{private}/team/secret:1", credentials=hub.USER),
    }
    size = len(hub.kaito_image(FILES)[0])
    kaito = (pushed["kaito"], size, {"os": "linux", "architecture": "s390x"})
    hub.push_index(f"{public}/team/kaito:index", [kaito])
    return pushed | {"public": public, "private host": private}


def auth(folder, host, credentials):
    file = folder / "auth.json"
    file.write_text(json.dumps({"auths": {host: {"auth": base64.b64encode(credentials.encode()).decode()}}}))
    return file


def inspect(image, authfile, seconds=30):
    return adapter_images.inspect(image, authfile=authfile, seconds=seconds)


@pytest.mark.parametrize(("name", "layers"), [("kaito", 1), ("docker", 3)])
def test_images_of_all_eras_are_pulled_and_unpacked(tmp_path, public, images, name, layers):
    image = f"{public}/team/{name}:1"
    manifest = inspect(image, tmp_path / "none")
    assert (manifest.digest, len(manifest.layers)) == (images[name], layers)
    pulled = asyncio.run(Images(tmp_path / "images", authfile=tmp_path / "none").pull(image))
    assert pulled.digest == images[name]
    assert {file.name: file.read_bytes() for file in pulled.folder.iterdir()} == FILES
    assert [file.name for file in (tmp_path / "images").iterdir()] == [pulled.folder.name]


def test_image_by_digest_and_through_an_index(tmp_path, public, images):
    assert inspect(f"{public}/team/kaito@{images['kaito']}", tmp_path / "none").digest == images["kaito"]
    assert inspect(f"{public}/team/kaito:index", tmp_path / "none").digest == images["kaito"]


def test_a_digest_beside_a_tag_decides(tmp_path, public, images):
    found = inspect(f"{public}/team/kaito:no-such-tag@{images['kaito']}", tmp_path / "none")
    assert (found.digest, found.pinned) == (images["kaito"], f"{public}/team/kaito@{images['kaito']}")


def test_folders_of_other_images_are_given_back(tmp_path, public, images):
    source = Images(tmp_path / "images", authfile=tmp_path / "none")
    kept, dropped = [asyncio.run(source.pull(f"{public}/team/{name}:1")) for name in ("kaito", "docker")]
    source.keep_only([kept.digest])
    assert (kept.folder.exists(), dropped.folder.exists()) == (True, False)


def test_image_under_two_names_is_pulled_once_also_at_the_same_time(tmp_path, public, images):
    source = Images(tmp_path / "images", authfile=tmp_path / "none")

    async def both():
        names = [f"{public}/team/{name}" for name in ("kaito:1", f"kaito@{images['kaito']}")]
        return await asyncio.gather(*[source.pull(name) for name in names])

    one, other = asyncio.run(both())
    assert one == other
    assert [file.name for file in (tmp_path / "images").iterdir()] == [one.folder.name]


def test_what_a_killed_pull_left_is_removed(tmp_path):
    root = tmp_path / "images"
    kept, left = root / ("sha256-" + "a" * 64), root / ".pull-x1" / "blobs"
    for folder in (kept, left):
        folder.mkdir(parents=True)
    Images(root, authfile=tmp_path / "none")
    assert list(root.iterdir()) == [kept]


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        pytest.param({"adapter_config.json": b"{}"}, "the image has no /data/adapter_model.safetensors", id="weights"),
        pytest.param({"adapter_model.safetensors": b""}, "the image has no /data/adapter_config.json", id="config"),
        pytest.param({"adapter_config.json": bytes(1 << 21)}, "1048576 are allowed", id="large config"),
    ],
)
def test_image_without_an_adapter_is_refused(tmp_path, public, images, files, reason):
    hub.push(tmp_path, hub.kaito_image(files), f"{public}/team/bad:1")
    with pytest.raises(errors.NotAnAdapter, match=reason):
        asyncio.run(Images(tmp_path / "images", authfile=tmp_path / "none").pull(f"{public}/team/bad:1"))


def test_private_image_needs_the_mounted_secret(tmp_path, private, images):
    image = f"{private}/team/secret:1"
    way_out = "; name a pull secret for this registry in inference.adapters[].source.imagePullSecrets"
    with pytest.raises(errors.RegistryAuthFailed) as none:
        inspect(image, tmp_path / "none")
    begins = f"the registry refuses {image} without credentials and none are given: "
    assert str(none.value).startswith(begins)
    assert str(none.value).removeprefix(begins) == "unauthorized: authentication required" + way_out
    with pytest.raises(errors.RegistryAuthFailed) as wrong:
        inspect(image, auth(tmp_path, private, "reader:wrong"))
    assert str(wrong.value).startswith(f"the registry refuses {image} without credentials and with the given ones: ")
    good = auth(tmp_path, private, hub.USER)
    assert inspect(image, good).digest == images["private"]
    pulled = asyncio.run(Images(tmp_path / "images", authfile=good).pull(image))
    assert sorted(file.name for file in pulled.folder.iterdir()) == sorted(FILES)


def test_public_image_does_not_suffer_from_a_wrong_secret(tmp_path, public, images):
    assert inspect(f"{public}/team/kaito:1", auth(tmp_path, public, "reader:wrong")).digest == images["kaito"]


@pytest.mark.parametrize(
    ("image", "error", "words"),
    [
        pytest.param("{public}/team/none:1", errors.AdapterImageNotFound, "the registry has no image", id="repository"),
        pytest.param("{public}/team/kaito:9", errors.AdapterImageNotFound, "push it or correct the name", id="tag"),
        pytest.param("{public}/Team:::", errors.AdapterImageNotFound, "is not an image reference", id="name"),
        pytest.param("{public}/team/artifact:1", errors.NotAnAdapter, "no container image", id="artifact"),
        pytest.param("127.0.0.1:1/x:1", errors.RegistryUnavailable, "does not answer as it should", id="nobody there"),
    ],
)
def test_failures_are_told_apart(tmp_path, images, image, error, words):
    with pytest.raises(error, match=words):
        inspect(image.format(public=images["public"]), tmp_path / "none")


def check(tmp_path, *references, authfile=None, seconds=10, **model):
    """`python -m serving --check`, as the operator's Job runs it."""
    model = {"id": "acme/tiny", "revision": "1", **model}
    (tmp_path / "serving.json").write_text(json.dumps({"workspace": "ns/w", "name": "tiny", "model": model}))
    adapters = [{"name": f"a{number}", "image": image} for number, image in enumerate(references)]
    (tmp_path / "adapters.json").write_text(json.dumps(adapters))
    environment = os.environ | {
        "TERMINATION_LOG": str(tmp_path / "termination"),
        "REGISTRY_AUTH": str(authfile or tmp_path / "none"),
        "CHECK_SECONDS": str(seconds),
    }
    done = subprocess.run(
        [sys.executable, "-m", "serving", "--check", tmp_path / "serving.json"],
        env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    left = tmp_path / "termination"
    return done, terminations.of_serving(left.read_text()) if left.exists() else None


def test_check_passes_and_says_what_it_found(tmp_path, public, private, images):
    secret = auth(tmp_path, private, hub.USER)
    done, left = check(tmp_path, f"{public}/team/docker:1", f"{private}/team/secret:1", authfile=secret)
    assert (done.returncode, left) == (0, None)
    assert f"adapter a1: {private}/team/secret@{images['private']}, 1 layers" in done.stdout


@pytest.mark.parametrize(
    ("image", "code", "reason"),
    [
        pytest.param("{public}/team/none:1", 11, "AdapterImageNotFound", id="missing"),
        pytest.param("{public}/team/artifact:1", 11, "NotAnAdapter", id="artifact"),
        pytest.param("{private}/team/secret:1", 30, "RegistryAuthFailed", id="auth"),
    ],
)
def test_check_names_the_field_and_ends_with_a_terminal_code(tmp_path, images, image, code, reason):
    public = images["public"]
    image = image.format(public=public, private=images["private host"])
    done, left = check(tmp_path, "127.0.0.1:1/x:1", f"{public}/team/kaito:1", image)
    assert (done.returncode, left.reason, left.retryable) == (code, reason, False)
    assert left.message.startswith("inference.adapters[2].source.image: ")
    assert image in left.message


def test_check_names_what_was_tuned_by_its_own_field(tmp_path, public, images):
    model = {"id": "acme/tiny", "revision": "1"}
    (tmp_path / "serving.json").write_text(json.dumps({"workspace": "ns/a0", "name": "tiny", "model": model}))
    config = Path(tmp_path / "serving.json")
    (tmp_path / "adapters.json").write_text(json.dumps([{"name": "a0", "image": f"{public}/team/none:1"}]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TERMINATION_LOG", str(tmp_path / "termination"))
        assert serving_check.check(config) == 11
    assert terminations.of_serving((tmp_path / "termination").read_text()).message.startswith(
        "tuning.output.image: the reg"
    )


@pytest.fixture
def silent():
    """The address of one who takes connections and says nothing."""
    listener = subprocess.Popen(
        [sys.executable, "-c", SILENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    yield f"127.0.0.1:{listener.stdout.readline().strip()}"
    listener.communicate()


def test_check_answers_in_time_when_the_registry_does_not(tmp_path, silent):
    done, left = check(tmp_path, f"{silent}/x:1", seconds=3)
    assert (done.returncode, left.reason, left.retryable) == (41, "RegistryUnavailable", True)
    assert left.message.startswith(f"inference.adapters[0].source.image: {silent}/x:1 gives no answer within 3 s")


def test_check_answers_in_time_when_the_hub_does_not(tmp_path, silent, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", f"http://{silent}")
    done, left = check(tmp_path, seconds=2, ask=True)
    assert (done.returncode, left.reason, left.retryable) == (40, "HubUnavailable", True)
    assert left.message.startswith("inference.preset.name: model acme/tiny at 1: the hub gives no answer within 2 s")


def test_check_answers_in_time_when_the_models_registry_does_not(tmp_path, silent):
    done, left = check(tmp_path, seconds=2, ask=True, image=f"{silent}/x:1")
    assert (done.returncode, left.reason, left.retryable) == (41, "RegistryUnavailable", True)
    assert left.message.startswith(f"inference.preset.presetOptions.image: {silent}/x:1 gives no answer within 2 s")


def test_a_wrong_name_is_told_though_another_registry_is_silent(tmp_path, silent, public, images):
    done, left = check(tmp_path, f"{silent}/x:1", f"{public}/team/none:1", seconds=3)
    assert (done.returncode, left.reason) == (11, "AdapterImageNotFound")
