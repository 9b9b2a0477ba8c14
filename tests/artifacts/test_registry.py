"""How the registry's password is found, and where it goes."""

import base64
import contextlib
import hashlib
import http.server
import json
import os
import ssl
import time
from pathlib import Path

import pytest

from artifacts import docker, errors, registry
from tests.simulators.conftest import tls  # noqa: F401
from tests.tuning import servers
from tests.tuning.conftest import entry, write_secret


@pytest.fixture
def tokens():
    with contextlib.closing(servers.TokenRegistry()) as server:
        server.manifests["1"] = {"layers": []}
        yield server


@pytest.fixture
def ask(tokens, tmp_path):
    def manifest(secret=None, *, push=False):
        auth = write_secret(tmp_path / "auth.json", secret) if secret else tmp_path / "none"
        with registry.of(f"{tokens.host}/team/a:1", auth, push=push) as asked:
            return json.loads(asked.manifest())

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
    with contextlib.closing(Private()) as server:
        server.manifests["1"] = {"layers": []}
        auth = write_secret(tmp_path / "auth.json", {server.host: entry()})
        with registry.of(f"{server.host}/team/a:1", auth) as asked:
            assert json.loads(asked.manifest()) == {"layers": []}
            server.asked.clear()
            asked.manifest()
        assert sent(server) == ["Bearer good"], "and at once the next time"
        with (
            registry.of(f"{server.host}/team/a:1", tmp_path / "none") as asked,
            pytest.raises(errors.Denied, match="DENIED: not for you"),
        ):
            asked.manifest()


def test_the_password_goes_to_no_other_owner(tokens, tmp_path):
    with contextlib.closing(Private()) as private:
        private.realm = f"http://localhost:{tokens.port}/token"
        auth = write_secret(tmp_path / "auth.json", {private.host: entry()})
        with (
            registry.of(f"{private.host}/team/a:1", auth) as asked,
            pytest.raises(errors.HostRefused, match="wants the password sent to 'http://localhost"),
        ):
            asked.manifest()
        assert not any("Basic" in said for said in sent(tokens))


def test_a_blobs_redirect_gets_no_password(tmp_path):
    class Redirecting(servers.Server):
        def answer(self, request):
            if "Authorization" not in request.headers:
                self.reply(request, 401, b"", {"WWW-Authenticate": 'Basic realm="here"'})
            else:
                self.reply(request, 307, b"", {"Location": f"http://localhost:{store.port}/blob"})

    with contextlib.closing(servers.Files()) as store, contextlib.closing(Redirecting()) as server:
        store.files["/blob"] = b"content"
        auth = write_secret(tmp_path / "auth.json", {server.host: entry()})
        with registry.of(f"{server.host}/team/a:1", auth) as asked:
            asked.blob(DIGEST, 7, tmp_path / "blob")
        assert (tmp_path / "blob").read_bytes() == b"content"
        assert sent(store) == [""]
        assert store.asked[0][2]["Accept-Encoding"] == "identity", "its digest is that of the stored bytes"


class Both(servers.Server):
    """A registry that speaks TLS and clear text on one port, and sends uploads to the latter."""

    def __init__(self, tls):  # noqa: F811
        self.clear, self.context = [], ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(tls.cert, tls.key)
        super().__init__()
        self.http.finish_request = self.begin

    def begin(self, connection, address):
        handle = http.server.ThreadingHTTPServer.finish_request
        if connection.recv(1, servers.socket.MSG_PEEK) != b"\x16":
            handle(self.http, connection, address)
            return
        with contextlib.suppress(OSError), self.context.wrap_socket(connection, server_side=True) as secure:
            handle(self.http, secure, address)

    def answer(self, request):
        if not isinstance(request.connection, ssl.SSLSocket):
            self.clear.append(request.headers.get("Authorization", ""))
        if "Authorization" not in request.headers:
            self.reply(request, 401, b"", {"WWW-Authenticate": 'Basic realm="here"'})
        elif request.command == "POST":
            self.reply(request, 202, b"", {"Location": f"http://{self.host}/v2/team/a/blobs/uploads/1"})
        else:
            self.reply(request, 201)


BODY = registry.Body(7, lambda: iter([b"content"]))
DIGEST = f"sha256:{hashlib.sha256(b'content').hexdigest()}"


def test_an_upload_that_goes_on_in_clear_text_gets_no_password(tls, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tls.ca))
    with contextlib.closing(Both(tls)) as server:
        auth = write_secret(tmp_path / "auth.json", {server.host: entry()})
        with (
            registry.of(f"{server.host}/team/a:1", auth, push=True) as asked,
            pytest.raises(errors.Unauthorized),
        ):
            asked.upload(DIGEST, BODY)
        assert server.clear == [""]


class Elsewhere(servers.Server):
    """A registry that sends on, to another address, what is written to `moved`."""

    def __init__(self, moved, to):
        super().__init__()
        self.moved, self.to = moved, to

    def answer(self, request):
        if self.moved in request.path:
            self.reply(request, 307, b"", {"Location": f"http://localhost:{self.to.port}{request.path}"})
        else:
            self.reply(request, 401, b"", {"WWW-Authenticate": f'Bearer realm="{self.url}/token"'})


@pytest.mark.parametrize("moved", ["/token", "/blobs/uploads/", "/manifests/"])
def test_what_is_written_goes_along_no_redirect(tokens, tmp_path, moved):
    with contextlib.closing(Elsewhere(moved, tokens)) as server:
        auth = write_secret(tmp_path / "auth.json", {server.host: {"identitytoken": "a-refresh-token"}})
        with registry.of(f"{server.host}/team/a:1", auth, push=True) as asked:
            with pytest.raises(errors.ArtifactError):
                asked.upload(DIGEST, BODY)
            with pytest.raises(errors.ArtifactError):
                asked.tag(b"{}")
    assert tokens.asked == []


def open_to(port):
    """Connections of this process to the port that it has not closed."""
    rows = [line.split() for line in Path("/proc/self/net/tcp").read_text().splitlines()[1:]]
    return [row for row in rows if row[2].endswith(f":{port:04X}") and row[3] in {"01", "08"}]


class Refusing(servers.Server):
    """Says one thing to everything, with a body that a client may leave unread."""

    status, challenge = 503, ""

    def answer(self, request):
        self.reply(request, self.status, bytes(1 << 20), {"WWW-Authenticate": self.challenge})


@pytest.mark.parametrize(
    ("status", "challenge", "kind", "words"),
    [
        pytest.param(503, "", errors.Away, "answers 503", id="503"),
        pytest.param(429, "", errors.Away, "answers 429", id="429"),
        pytest.param(404, "", errors.NotFound, "has no image", id="404"),
        pytest.param(401, "Bearer", errors.HostRefused, "names no server", id="no realm"),
        pytest.param(401, 'Bearer realm="http://[/"', errors.HostRefused, "not its own", id="no address"),
        pytest.param(401, 'Bearer realm="http://other.io/"', errors.HostRefused, "not its own", id="other"),
    ],
)
def test_a_refusal_leaves_no_connection_open(tmp_path, status, challenge, kind, words):
    with contextlib.closing(Refusing()) as server:
        server.status, server.challenge = status, challenge
        auth = write_secret(tmp_path / "auth.json", {server.host: entry()})
        asked = registry.of(f"{server.host}/team/a:1", auth)
        asked._stage = registry._PASSWORD
        with asked, pytest.raises(kind, match=words) as held:
            asked.manifest()
        assert open_to(server.port) == []
        assert held.value


class Slow(servers.Server):
    """Takes a body some seconds after it was sent, as a narrow line does."""

    def body(self, request):
        time.sleep(6 if request.command == "PUT" else 0)
        return servers.Server.body(request)

    def answer(self, request):
        self.reply(request, 201 if request.command == "PUT" else 202, b"", {"Location": "/uploads/1"})


def test_an_upload_through_a_narrow_line_is_patient(tmp_path):
    """For longer than a connection may take; the body is more than the two ends of the line hold."""
    sizes = []

    def pieces():
        for _ in range(1024):
            sizes.append(registry.SENT)
            yield bytes(registry.SENT)

    with contextlib.closing(Slow()) as server:
        with registry.of(f"{server.host}/team/a:1", tmp_path / "none", push=True) as asked:
            asked.upload(DIGEST, registry.Body(1024 * registry.SENT, pieces))
        assert len(sizes) == 1024


def test_an_empty_blob_is_a_file_though_nothing_of_it_comes(tmp_path):
    digest = f"sha256:{hashlib.sha256().hexdigest()}"
    with registry.of("localhost:1/team/a:1", tmp_path / "none") as asked:
        asked.blob(digest, 0, tmp_path / "blob")
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("blob", b"")]


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
