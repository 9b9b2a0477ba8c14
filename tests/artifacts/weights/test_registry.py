"""How the registry's password is found, and where it goes."""

import base64
import json
import os

import pytest

from artifacts.weights import docker, errors, registry
from tests.tuning import servers
from tests.tuning.conftest import entry, write_secret


@pytest.fixture
def tokens():
    server = servers.TokenRegistry()
    server.manifests["1"] = {"layers": []}
    yield server
    server.close()


@pytest.fixture
def ask(tokens, tmp_path):
    def manifest(secret=None, *, push=False):
        auth = write_secret(tmp_path / "auth.json", secret) if secret else tmp_path / "none"
        with registry.Registry(f"{tokens.host}/team/a:1", auth, field="IMAGE", push=push) as asked:
            return json.loads(asked.manifest()[0])

    return manifest


def sent(tokens):
    return [headers.get("Authorization", "") for _, _, headers in tokens.asked]


def test_a_public_image_needs_no_password_and_gets_none(tokens, ask):
    assert ask({tokens.host: entry(password="expired")}) == {"layers": []}
    assert sent(tokens) == ["", "", "Bearer anonymous"]


class Private(servers.TokenRegistry):
    """Anybody gets a token, which opens nothing."""

    def answer(self, request):
        if request.headers.get("Authorization") == "Bearer anonymous":
            self.reply(request, 403, b'{"errors": [{"code": "DENIED", "message": "not for you"}]}')
        else:
            super().answer(request)


def test_a_private_image_is_asked_for_with_the_password_then(tmp_path):
    server = Private()
    server.manifests["1"] = {"layers": []}
    auth = write_secret(tmp_path / "auth.json", {server.host: entry()})
    with registry.Registry(f"{server.host}/team/a:1", auth, field="IMAGE") as asked:
        assert json.loads(asked.manifest()[0]) == {"layers": []}
        server.asked.clear()
        asked.manifest()
    assert sent(server) == ["Bearer good"], "and at once the next time"
    with (
        registry.Registry(f"{server.host}/team/a:1", tmp_path / "none", field="IMAGE") as asked,
        pytest.raises(errors.ImageForbidden, match="DENIED: not for you"),
    ):
        asked.manifest()
    server.close()


def test_the_password_goes_to_no_other_owner(tokens, tmp_path):
    private = Private()
    private.realm = f"http://localhost:{tokens.port}/token"
    auth = write_secret(tmp_path / "auth.json", {private.host: entry()})
    with (
        registry.Registry(f"{private.host}/team/a:1", auth, field="IMAGE") as asked,
        pytest.raises(errors.ImageForbidden, match="wants the password sent to 'http://localhost"),
    ):
        asked.manifest()
    assert not any("Basic" in said for said in sent(tokens))
    private.close()


def test_a_blobs_redirect_gets_no_password(tmp_path):
    store = servers.Files()
    store.files["/blob"] = b"content"
    digest = "sha256:ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73"

    class Redirecting(servers.Server):
        def answer(self, request):
            if "Authorization" not in request.headers:
                self.reply(request, 401, b"", {"WWW-Authenticate": 'Basic realm="here"'})
            else:
                self.reply(request, 307, b"", {"Location": f"http://localhost:{store.port}/blob"})

    server = Redirecting()
    auth = write_secret(tmp_path / "auth.json", {server.host: entry()})
    with registry.Registry(f"{server.host}/team/a:1", auth, field="IMAGE") as asked:
        asked.blob(digest, 7, tmp_path / "blob")
    assert (tmp_path / "blob").read_bytes() == b"content"
    assert sent(store) == [""]
    store.close()
    server.close()


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ("phi", "docker.io/library/phi:latest"),
        ("team/phi:1", "docker.io/team/phi:1"),
        ("localhost:5000/phi", "localhost:5000/phi:latest"),
        (f"reg.io/a/b:1@sha256:{1:064x}", f"reg.io/a/b@sha256:{1:064x}"),
        ("index.docker.io/team/phi", "docker.io/team/phi:latest"),
    ],
)
def test_references_are_read_as_docker_does(image, expected):
    assert str(docker.parse(image)) == expected


@pytest.mark.parametrize("image", ["reg.io/Upper:1", "reg.io/a@sha256:1", "reg.io/a:b c", "", "reg.io/"])
def test_what_is_no_reference(image):
    with pytest.raises(ValueError, match="is no image reference"):
        docker.parse(image)


HELPER = """#!/bin/sh
read server
echo "{\\"Username\\": \\"of $server\\", \\"Secret\\": \\"kept\\"}"
"""


def test_passwords_are_where_docker_and_podman_keep_them(tmp_path, monkeypatch):
    auth = base64.b64encode(b"me:mine").decode()
    auths = {
        "reg.io": {"auth": auth},
        "https://index.docker.io/v1/": {"identitytoken": "t"},
        "reg.io/team": {"auth": ""},
    }
    (tmp_path / "config.json").write_text(json.dumps({"auths": auths, "credHelpers": {"kept.io": "test"}}))
    helper = tmp_path / "docker-credential-test"
    helper.write_text(HELPER)
    helper.chmod(0o755)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("REGISTRY_AUTH_FILE", raising=False)
    found = {name: docker.find(None, docker.parse(name)) for name in ("reg.io/a", "phi", "kept.io/a", "other.io/a")}
    assert found["reg.io/a"] == ("me", "mine", "")
    assert found["phi"] == ("", "", "t")
    assert found["kept.io/a"] == ("of kept.io", "kept", "")
    assert not found["other.io/a"]
