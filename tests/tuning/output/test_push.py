import base64
import gzip
import hashlib
import json
import os
import signal
import subprocess
import tarfile
import threading
import time

import pytest

from artifacts import docker
from tests.tuning import servers
from tests.tuning.conftest import entry, write_secret
from tuning.config import INTENT
from tuning.errors import Evicted, PushForbidden, PushUnauthorized, RegistryUnavailable
from tuning.eviction import Eviction
from tuning.output import image, push
from tuning.output.patience import Patience

FILES = {"chat_template.jinja": b"x", "adapter_model.safetensors": os.urandom(300_000), "adapter_config.json": b"{}"}
ANNOTATIONS = {"sh.kaito.model.name": "phi-3", INTENT: "an-intent"}


@pytest.fixture
def packed(tmp_path):
    return pack(tmp_path)


def pack(folder, name="layout", annotations=ANNOTATIONS):
    paths = {}
    for file, content in FILES.items():
        paths[file] = folder / f"{name}-{file}"
        paths[file].write_bytes(content)
    return image.write(folder / name, paths, annotations)


@pytest.fixture
def go(tmp_path, packed):
    """Pushes the packed image with a secret of these entries."""

    def push_to(target, entries=None, *, budget=0.0, eviction=None, what=packed):
        secret = tmp_path / "secret"
        if entries is not None:
            secret.write_text(json.dumps({"auths": entries}))
        (tmp_path / "scratch").mkdir(exist_ok=True)
        return push.push(
            what,
            target,
            "an-intent",
            secret,
            scratch=tmp_path / "scratch",
            waits=Patience(eviction or Eviction(), seconds=budget, pause=0.1),
        )

    return push_to


def blob(packed, digest):
    return (packed.layout / "blobs" / digest.replace(":", "/")).read_bytes()


def test_the_same_files_make_the_same_image(tmp_path):
    one = pack(tmp_path, "one")
    os.utime(tmp_path / "one-chat_template.jinja", (1, 1))
    time.sleep(1.1)  # gzip and tar have times of a second
    assert pack(tmp_path, "two").digest == one.digest
    assert pack(tmp_path, "two").digest == one.digest  # over an old layout too
    assert pack(tmp_path, "three", {}).digest != one.digest


def test_the_layout_is_an_image_of_one_layer_with_data(packed, tmp_path):
    manifest = json.loads(blob(packed, packed.digest))
    (layer,) = manifest["layers"]
    assert manifest["annotations"] == ANNOTATIONS
    assert manifest["config"]["mediaType"] == "application/vnd.oci.image.config.v1+json"
    packed_layer = blob(packed, layer["digest"])
    assert layer["size"] == len(packed_layer)
    config = json.loads(blob(packed, manifest["config"]["digest"]))
    diff = hashlib.sha256(gzip.decompress(packed_layer)).hexdigest()
    assert config["rootfs"] == {"type": "layers", "diff_ids": [f"sha256:{diff}"]}
    (tmp_path / "layer.tar.gz").write_bytes(packed_layer)
    with tarfile.open(tmp_path / "layer.tar.gz") as tar:
        members = {member.name: member for member in tar}
        assert list(members) == ["data", *(f"data/{name}" for name in sorted(FILES))]
        assert {(member.uid, member.mtime, member.uname) for member in members.values()} == {(0, 0, "")}
        assert tar.extractfile("data/adapter_model.safetensors").read() == FILES["adapter_model.safetensors"]


def test_what_tells_of_the_adapter_is_a_layer_of_its_own(tmp_path):
    weights, card = tmp_path / "weights", tmp_path / "card"
    weights.write_bytes(b"w" * 1000)
    layers = []
    for told in ("an hour", "two hours"):
        card.write_text(told)
        packed = image.write(tmp_path / "layout", {"w": weights}, ANNOTATIONS, card={"README.md": card})
        layers.append([layer["digest"] for layer in json.loads(blob(packed, packed.digest))["layers"]])
    assert layers[0][0] == layers[1][0]
    assert layers[0][1] != layers[1][1]


def test_the_image_is_in_the_registry_and_skopeo_gets_it_back(registry, packed, go, tmp_path):
    target = f"{registry.host}/team/adapter:1"
    assert go(target, {registry.host: entry()}) == f"{registry.host}/team/adapter@{packed.digest}"
    assert registry.manifest("team/adapter", "1")["annotations"] == ANNOTATIONS
    docker.write(tmp_path / "auth", registry.host, docker.Credential(servers.USER, servers.PASSWORD))
    command = ["skopeo", "--insecure-policy", "copy", "--src-tls-verify=false", "--authfile", tmp_path / "auth"]
    subprocess.run([*command, f"docker://{target}", f"dir:{tmp_path / 'back'}"], check=True, capture_output=True)
    (layer,) = json.loads((tmp_path / "back" / "manifest.json").read_text())["layers"]
    with tarfile.open(tmp_path / "back" / layer["digest"].removeprefix("sha256:")) as tar:
        assert tar.extractfile("data/adapter_model.safetensors").read() == FILES["adapter_model.safetensors"]


def test_the_password_is_on_disk_only_while_it_is_needed(registry, go, tmp_path):
    go(f"{registry.host}/team/adapter:2", {registry.host: entry()})
    assert not (tmp_path / "scratch" / "push-auth.json").exists()


def test_what_is_there_already_is_not_sent_again(registry, go, packed):
    front = Front(registry)
    target = f"{front.host}/team/again:1"
    assert go(target, {front.host: entry()}) == go(target, {front.host: entry()})
    assert sum(method == "PUT" and "/manifests/" in path for method, path, _ in front.asked) == 1
    front.close()


@pytest.mark.parametrize(
    "login",
    [
        entry(),
        {
            "auth": base64.b64encode(b"00000000-0000-0000-0000-000000000000:").decode(),
            "identitytoken": "a-refresh-token",
        },
    ],
)
def test_registries_with_tokens_are_pushed_to(tmp_path, go, packed, login):
    with servers.Registry(tmp_path) as behind:
        front = Front(behind, tokens=True)
        assert go(f"{front.host}/team/adapter:1", {front.host: login}).endswith(packed.digest)
        assert behind.manifest("team/adapter", "1")["annotations"] == ANNOTATIONS
        front.close()


class Front(servers.TokenRegistry):
    """Before a real registry: counts, asks for tokens, and refuses what `refuse` says."""

    refusal = json.dumps({"errors": [{"code": "DENIED", "message": "quota"}]}).encode()

    def __init__(self, behind, *, tokens=False, refuse=lambda _request: None):
        self.behind, self.tokens, self.refuse = behind, tokens, refuse
        super().__init__()

    def answer(self, request):
        if status := self.refuse(request):
            self.reply(request, status, self.refusal)
        elif self.tokens and (
            request.path.startswith("/token") or request.headers.get("Authorization") != "Bearer good"
        ):
            super().answer(request)
        else:
            self.pass_on(request)

    def pass_on(self, request):
        answer = servers.forward(self.behind, request)
        headers = {k: v for k, v in answer.headers.items() if k not in ("Transfer-Encoding", "Content-Length")}
        if request.command == "HEAD":
            headers["Content-Length"] = answer.headers["Content-Length"]
        self.reply(request, answer.status_code, answer.content, headers)


def test_a_registry_that_comes_back_gets_the_image(tmp_path, go, packed, caplog):
    folder = tmp_path / "store"
    folder.mkdir()
    with servers.Registry(folder) as server:
        server.close()
        back = threading.Timer(0.5, server.start)
        back.start()
        assert go(f"{server.host}/team/adapter:1", budget=30).endswith(packed.digest)
        back.join()
    told = [line for line in caplog.messages if server.host in line]
    assert told
    assert all("trying again in" in line for line in told), "each try says why"


def test_an_upload_that_breaks_is_repeated(registry, go, packed):
    breaks = iter([503, 500])
    front = Front(registry, refuse=lambda request: next(breaks, None) if request.command in ("PATCH", "PUT") else None)
    assert go(f"{front.host}/team/broken:1", {front.host: entry()}, budget=30).endswith(packed.digest)
    front.close()


def test_a_secret_that_is_mended_saves_the_run(registry, go, packed, tmp_path):
    def mend(_request):
        write_secret(tmp_path / "secret", {front.host: entry()})

    front = Front(registry, refuse=mend)  # by its first question the expired password has been read
    wrong = {front.host: entry(password="expired")}
    assert go(f"{front.host}/team/mended:1", wrong, budget=30).endswith(packed.digest)
    front.close()


def test_a_wrong_password_in_the_end(registry, go):
    with pytest.raises(PushUnauthorized, match=r"tuning\.output\.imagePushSecret"):
        go(f"{registry.host}/team/adapter:3", {registry.host: entry(password="wrong")})


def test_a_full_registry_in_the_end(registry, go):
    front = Front(registry, refuse=lambda request: 403 if request.command in ("PATCH", "PUT") else None)
    with pytest.raises(PushForbidden, match=r"tuning\.output\.image: .*denied"):
        go(f"{front.host}/team/full:1", {front.host: entry()})
    front.close()


def test_a_proxys_error_page_is_not_the_registrys_last_word(registry, go):
    front = Front(registry, refuse=lambda request: 502 if request.command == "PUT" else None)
    front.refusal = b"<html><title>Bad Gateway</title></html>"
    with pytest.raises(RegistryUnavailable, match="502"):
        go(f"{front.host}/quota-forecast/adapter:1", {front.host: entry()})
    front.close()


def test_a_dead_registry_in_the_end(go):
    with pytest.raises(RegistryUnavailable):
        go(f"127.0.0.1:{servers.free_port()}/team/adapter:1")


def test_an_eviction_ends_an_upload_that_hangs(registry, go):
    """While there is time for the last words: what was trained since the last checkpoint would go with the pod."""

    def hang(request):
        if request.command in ("PATCH", "PUT"):
            os.kill(os.getpid(), signal.SIGTERM)
            answered.append(not let_go.wait(120))
            return 503
        return None

    let_go, answered = threading.Event(), []
    eviction, front = Eviction(grace=11), Front(registry, refuse=hang)
    before = signal.getsignal(signal.SIGTERM)
    eviction.listen()
    with eviction.deferred(), pytest.raises(Evicted):
        go(f"{front.host}/team/hangs:1", {front.host: entry()}, budget=600, eviction=eviction)
    signal.signal(signal.SIGTERM, before)
    assert True not in answered, "the registry's answer was waited for"
    let_go.set()
    front.close()


def test_an_eviction_ends_the_waiting(go):
    def evict(request):
        os.kill(os.getpid(), signal.SIGTERM)
        busy.reply(request, 503)

    eviction, busy = Eviction(grace=11), servers.Files()
    busy.answer = evict
    before = signal.getsignal(signal.SIGTERM)
    eviction.listen()
    with eviction.deferred(), pytest.raises(Evicted):  # not RegistryUnavailable, which the budget's end would raise
        go(f"{busy.host}/team/adapter:1", budget=60, eviction=eviction)
    signal.signal(signal.SIGTERM, before)
    busy.close()
