import base64
import hashlib
import json

import pytest

from artifacts import docker
from tests.tuning import servers
from tests.tuning.conftest import entry
from tuning.config import INTENT
from tuning.errors import PushForbidden, PushUnauthorized, RegistryUnavailable
from tuning.output.registry import Registry


@pytest.fixture
def ask(tmp_path):
    """Asks about an image with a secret of these entries."""

    def go(image, entries=None, intent="an-intent"):
        path = tmp_path / "push.json"
        if entries is not None:
            path.write_text(json.dumps({"auths": entries}))
        return Registry(image, path, pauses=(0.1, 0.4)).ask(intent)

    return go


def test_the_right_password_may_push_and_leaves_nothing_behind(registry, ask):
    assert ask(f"{registry.host}/team/new:1", {registry.host: entry()}) == ""
    uploads = registry.folder / "store/docker/registry/v2/repositories/team/new/_uploads"
    assert list(uploads.iterdir())  # the registry keeps an empty folder
    assert list(uploads.rglob("startedat")) == []


@pytest.mark.parametrize("key", ["http://{}/v2/", "https://{}", "{}/team"])
def test_keys_as_docker_writes_them(registry, ask, key):
    assert ask(f"{registry.host}/team/a:1", {key.format(registry.host): entry()}) == ""


def test_a_wrong_password(registry, ask):
    with pytest.raises(PushUnauthorized) as raised:
        ask(f"{registry.host}/team/a:1", {registry.host: entry(password="wrong")})
    assert str(raised.value).startswith(
        f"tuning.output.imagePushSecret: registry {registry.host} does not accept user 'pusher'"
    )
    assert "wrong" not in str(raised.value)


@pytest.mark.parametrize(
    ("entries", "has"), [(None, "none"), ({}, "none"), ({"other.io": entry(), "a.io": entry()}, "a.io, other.io")]
)
def test_a_secret_without_the_registry(registry, ask, entries, has):
    with pytest.raises(PushUnauthorized) as raised:
        ask(f"{registry.host}/team/a:1", entries)
    assert f"no entry for it (entries: {has}); add one for {registry.host}" in str(raised.value)


def test_tls_is_spoken_and_checked(tmp_path, ask, certificate, monkeypatch):
    with servers.Registry(tmp_path, password=True, tls=certificate) as server:
        host = f"localhost:{server.port}"
        with pytest.raises(PushForbidden, match="a certificate that is not trusted"):
            ask(f"{host}/team/a:1", {host: entry()})
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate[0]))
        assert ask(f"{host}/team/a:1", {host: entry()}) == ""


def test_nobody_there(ask):
    with pytest.raises(RegistryUnavailable, match=r"tuning.output.image: registry 127.0.0.1:\d+ does not answer"):
        ask(f"127.0.0.1:{servers.free_port()}/a:1")


def test_metadata_is_no_registry(ask):
    with pytest.raises(PushForbidden, match="never allowed"):
        ask("169.254.169.254/a:1", {"169.254.169.254": entry()})


def test_a_registry_with_tokens(tokens, ask):
    assert ask(f"{tokens.host}/team/a:1", {tokens.host: entry()}) == ""
    asked = [path for _, path, _ in tokens.asked if path.startswith("/token")]
    assert "scope=repository%3Ateam%2Fa%3Apull%2Cpush" in asked[0]
    assert tokens.asked[-2][:2] == ("DELETE", "/v2/x/blobs/uploads/one?state=1")


def test_the_token_that_az_acr_login_leaves(tokens, ask):
    login = {
        "auth": base64.b64encode(b"00000000-0000-0000-0000-000000000000:").decode(),
        "identitytoken": "a-refresh-token",
    }
    assert ask(f"{tokens.host}/team/a:1", {tokens.host: login}) == ""


def test_a_token_that_has_expired(tokens, ask):
    with pytest.raises(PushUnauthorized, match="does not accept the token"):
        ask(f"{tokens.host}/team/a:1", {tokens.host: {"identitytoken": "old"}})


def test_a_wrong_password_for_tokens(tokens, ask):
    with pytest.raises(PushUnauthorized, match="does not accept user 'pusher'"):
        ask(f"{tokens.host}/team/a:1", {tokens.host: entry(password="wrong")})


def test_anybodys_token_that_does_not_push(tokens, ask):
    with pytest.raises(PushUnauthorized, match="no entry for it"):
        ask(f"{tokens.host}/team/a:1", {"other.io": entry()})


def error(code, message="m"):
    return {"errors": [{"code": code, "message": message}]}


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (401, error("UNAUTHORIZED", "insufficient scope"), "401 UNAUTHORIZED: insufficient scope"),
        (403, error("DENIED", "quota of 10 GiB is used up"), "403 DENIED: quota of 10 GiB is used up"),
        (404, error("NAME_UNKNOWN"), "404 NAME_UNKNOWN"),
        (400, error("NAME_INVALID"), "400 NAME_INVALID"),
        (405, error("UNSUPPORTED"), "405 UNSUPPORTED"),
        (413, {}, "413 Request Entity Too Large"),
        (302, {}, "302 Found"),
        (200, {"secret": "of another server"}, "200 OK"),
    ],
)
def test_a_registry_that_takes_the_secret_but_no_image(tokens, ask, status, body, words):
    tokens.uploads = (status, body)
    with pytest.raises(PushForbidden) as raised:
        ask(f"{tokens.host}/team/a:1", {tokens.host: entry()})
    assert f"does not let pusher push to team/a: {words}" in str(raised.value)
    assert "of another server" not in str(raised.value)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_registry_in_trouble(tokens, ask, status):
    tokens.uploads = (status, {})
    with pytest.raises(RegistryUnavailable, match=str(status)):
        ask(f"{tokens.host}/team/a:1", {tokens.host: entry()})
    assert sum(method == "POST" and path.startswith("/v2/team") for method, path, _ in tokens.asked) > 2


def test_a_registry_that_recovers_is_forgiven(tokens, ask):
    statuses = iter([503, 202])
    plain = tokens.upload

    def upload(request):
        tokens.uploads = (next(statuses), {})
        plain(request)

    tokens.upload = upload
    assert ask(f"{tokens.host}/team/a:1", {tokens.host: entry()}) == ""


@pytest.mark.parametrize(
    ("realm", "base", "same"),
    [
        ("https://auth.docker.io/token", "https://registry-1.docker.io", True),
        ("https://gitlab.com/jwt/auth", "https://registry.gitlab.com", True),
        ("https://reg.azurecr.io/oauth2/token", "https://reg.azurecr.io", True),
        ("http://127.0.0.1:81/t", "http://127.0.0.1:80", True),
        ("http://reg.azurecr.io/oauth2/token", "https://reg.azurecr.io", False),
        ("https://evil.io/token", "https://reg.azurecr.io", False),
        ("https://azurecr.io.evil.io/token", "https://reg.azurecr.io", False),
        ("https://evil.io/token", "https://quay.io", False),
        ("https://9.0.0.1/token", "https://10.0.0.1", False),
        ("file:///token", "https://quay.io", False),
    ],
)
def test_whose_a_token_server_is(realm, base, same):
    assert docker.same_owner(realm, base) == same


def test_the_password_is_not_sent_to_a_stranger(tokens, ask):
    stranger = servers.TokenRegistry(address="127.0.0.2")
    tokens.realm = stranger.realm
    with pytest.raises(PushForbidden, match="not its own host"):
        ask(f"{tokens.host}/team/a:1", {tokens.host: entry()})
    assert stranger.asked == []
    stranger.close()


def test_the_password_does_not_follow_a_redirect(registry, tokens, ask):
    """A token server that sends us elsewhere gets no answer, and elsewhere hears nothing."""
    elsewhere = servers.Files()
    plain = tokens.answer

    def answer(request):
        if request.path.startswith("/token"):
            tokens.reply(request, 307, b"", {"Location": f"{elsewhere.url}/token"})
        else:
            plain(request)

    tokens.answer = answer
    with pytest.raises(PushUnauthorized):
        ask(f"{tokens.host}/team/a:1", {tokens.host: entry()})
    assert elsewhere.asked == []
    elsewhere.close()


def test_an_upload_elsewhere_is_not_cancelled_there(tokens, ask):
    elsewhere = servers.Files()  # the same machine on another port
    plain = tokens.answer

    def answer(request):
        if request.command == "POST" and request.headers.get("Authorization") == "Bearer good":
            tokens.reply(request, 202, b"", {"Location": f"{elsewhere.url}/upload"})
        else:
            plain(request)

    tokens.answer = answer
    assert ask(f"{tokens.host}/team/a:1", {tokens.host: entry()}) == ""
    assert elsewhere.asked == []
    elsewhere.close()


@pytest.mark.parametrize(
    ("manifest", "found"),
    [
        ({"annotations": {INTENT: "an-intent"}}, True),
        ({"annotations": {INTENT: "another"}}, False),
        ({"annotations": None}, False),
        ({}, False),
        ([1], False),
    ],
)
def test_an_image_of_the_same_intent_is_found(tokens, ask, manifest, found):
    tokens.manifests["1"] = manifest
    assert bool(ask(f"{tokens.host}/team/a:1", {tokens.host: entry()})) == found


@pytest.mark.parametrize(
    ("manifest", "found"),
    [
        ({"annotations": {"sh.kaito.model.name": "phi-3"}}, True),
        ({"layers": []}, True),
        ({"annotations": {INTENT: "an-intent"}}, False),
        (None, False),
    ],
    ids=["v0.12", "v0.3", "ours", "nothing-there"],
)
def test_an_image_that_kaito_pushed_is_found_by_having_no_intent(tokens, ask, manifest, found):
    if manifest:
        tokens.manifests["1"] = manifest
    assert bool(ask(f"{tokens.host}/team/a:1", {tokens.host: entry()}, intent="")) is found


def test_an_image_whose_manifest_comes_in_pieces_is_found(ask):
    manifest = json.dumps({"annotations": {INTENT: "an-intent"}}).encode()
    registry = servers.Files()

    def answer(request):
        if request.command == "GET":
            servers.in_pieces(request, manifest[:10], manifest[10:])
        else:
            registry.reply(request, 202)

    registry.answer = answer
    assert ask(f"{registry.host}/team/a:1") == f"sha256:{hashlib.sha256(manifest).hexdigest()}"
    registry.close()
