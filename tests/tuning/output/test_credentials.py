import base64
import json

import pytest

from artifacts import docker
from tuning.errors import ConfigInvalid, PushUnauthorized
from tuning.output import credentials
from tuning.output.credentials import Credential, Reference


@pytest.mark.parametrize(
    ("image", "parts"),
    [
        ("reg.azurecr.io/adapter:0.0.1", ("reg.azurecr.io", "adapter", "0.0.1")),
        ("reg.azurecr.io/team/adapter", ("reg.azurecr.io", "team/adapter", "latest")),
        ("127.0.0.1:5000/a:b", ("127.0.0.1:5000", "a", "b")),
        ("localhost/a", ("localhost", "a", "latest")),
        ("team/adapter:1", ("docker.io", "team/adapter", "1")),
        ("adapter", ("docker.io", "library/adapter", "latest")),
        ("index.docker.io/team/a:1", ("docker.io", "team/a", "1")),
    ],
)
def test_references_are_read_as_docker_reads_them(image, parts):
    assert credentials.parse(image) == Reference(*parts)


@pytest.mark.parametrize(
    "image",
    [
        "",
        "reg.io/",
        "reg.io/Team/a",
        "reg.io/a:b/c:",
        "reg.io/a@sha256:00",
        "reg.io/a: b",
        "https://reg.io/a:b",
        "reg.io/a:" + "x" * 129,
    ],
)
def test_what_is_no_reference_is_named(image):
    with pytest.raises(ConfigInvalid) as raised:
        credentials.parse(image)
    assert str(raised.value).startswith(f"tuning.output.image: {image!r} is no image reference; write host/")


def auth(user, password):
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


REFERENCE = credentials.parse("reg.azurecr.io/team/adapter:1")


@pytest.mark.parametrize(
    "key",
    [
        "reg.azurecr.io",
        "https://reg.azurecr.io",
        "https://reg.azurecr.io/",
        "https://reg.azurecr.io/v2/",
        "http://reg.azurecr.io/v1/",
        "reg.azurecr.io/team",
        "reg.azurecr.io/team/adapter",
    ],
)
def test_keys_of_all_ages_are_found(tmp_path, key):
    secret = tmp_path / "s"
    secret.write_text(json.dumps({"auths": {"other.io": auth("o", "o"), key: auth("me", "pa:ss")}}))
    assert credentials.find(secret, REFERENCE) == Credential("me", "pa:ss")


@pytest.mark.parametrize(
    "key",
    [
        "azurecr.io",
        "reg.azurecr.io.evil.io",
        "reg.azurecr.io:443",
        "reg.azurecr.io/tea",
        "xreg.azurecr.io",
        "reg.azurecr.io/team/adapter/more",
    ],
)
def test_the_password_of_another_host_or_repository_is_not_taken(tmp_path, key):
    secret = tmp_path / "s"
    secret.write_text(json.dumps({"auths": {key: auth("me", "mine")}}))
    assert not credentials.find(secret, REFERENCE)


def test_the_most_specific_entry_wins(tmp_path):
    secret = tmp_path / "s"
    entries = {
        "reg.azurecr.io": auth("a", "a"),
        "reg.azurecr.io/team": auth("b", "b"),
        "https://reg.azurecr.io": auth("c", "c"),
    }
    secret.write_text(json.dumps({"auths": entries}))
    assert credentials.find(secret, REFERENCE) == Credential("b", "b")


@pytest.mark.parametrize(
    ("entry", "found"),
    [
        ({"username": "me", "password": "mine"}, Credential("me", "mine")),
        ({"username": "0000", "password": "x", "identitytoken": "t"}, Credential("0000", "x", "t")),
        ({**auth("0000", "\0"), "identitytoken": "t"}, Credential("0000", "", "t")),
        ({}, Credential()),
    ],
)
def test_entries_of_all_kinds(tmp_path, entry, found):
    secret = tmp_path / "s"
    secret.write_text(json.dumps({"auths": {"reg.azurecr.io": entry}}))
    assert credentials.find(secret, REFERENCE) == found


def test_docker_hub_has_several_names(tmp_path):
    secret = tmp_path / "s"
    secret.write_text(json.dumps({"auths": {"https://index.docker.io/v1/": auth("me", "mine")}}))
    assert credentials.find(secret, credentials.parse("team/adapter")) == Credential("me", "mine")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '"x"',
        '{"auths": []}',
        '{"auths": {"reg.azurecr.io": {"auth": "***"}}}',
        '{"auths": {"reg.azurecr.io": "x"}}',
    ],
)
def test_a_broken_secret_is_named(tmp_path, text):
    secret = tmp_path / "s"
    secret.write_text(text)
    with pytest.raises(PushUnauthorized, match=r"tuning\.output\.imagePushSecret: .* anew"):
        credentials.find(secret, REFERENCE)


def test_no_secret_is_no_credential(tmp_path):
    assert not credentials.find(tmp_path / "none", REFERENCE)


def test_skopeo_gets_one_entry_and_no_more(tmp_path):
    docker.write(tmp_path / "auth", "reg.azurecr.io", Credential("me", "mine", "token"))
    assert json.loads((tmp_path / "auth").read_text()) == {
        "auths": {"reg.azurecr.io": {**auth("me", "mine"), "identitytoken": "token"}}
    }
    assert (tmp_path / "auth").stat().st_mode & 0o777 == 0o600
