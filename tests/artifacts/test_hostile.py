"""Answers that no honest server gives: each ends as one of our errors, in words that no terminal obeys."""

import contextlib

import pytest

from artifacts import addresses, errors, registry, strangers, web
from artifacts import manifest as manifests
from tests.tuning import servers

DEEP = b"[" * 100_000
BODY = registry.Body(7, lambda: iter([b"content"]))
DIGEST = f"sha256:{'0' * 64}"


class Hostile(servers.Server):
    """Says to each path what `says` has for it: status, body, headers; to others, that a token is wanted."""

    def __init__(self, **says):
        super().__init__()
        self.says = says

    def answer(self, request):
        kind = next((name for name in self.says if f"/{name}" in request.path), "")
        if not kind:
            self.reply(request, 401, b"", {"WWW-Authenticate": f'Bearer realm="{self.url}/token"'})
        elif callable(self.says[kind]):
            self.says[kind](request)
        else:
            self.reply(request, *self.says[kind])


def less_than_nothing(request):
    request.send_response(200)
    request.send_header("Transfer-Encoding", "chunked")
    request.end_headers()
    request.wfile.write(b"-5\r\nhello\r\n0\r\n\r\n")
    request.close_connection = True


def upload(asked):
    asked.upload(DIGEST, BODY)


def manifest(asked):
    return strangers.parsed(asked.manifest())


def asked_of(server, tmp_path, ask):
    with registry.of(f"{server.host}/team/a:1", tmp_path / "none", push=ask is upload) as asked:
        ask(asked)


@pytest.mark.parametrize(
    ("says", "ask", "words"),
    [
        ({"token": (200, DEEP)}, manifest, "sent no token"),
        ({"token": (200, b'{"token": "\\u1234"}')}, manifest, "sent no token"),
        ({"token": (200, b'{"token": "a\\nb"}')}, manifest, "sent no token"),
        ({"token": (200, b'{"token": ["a"]}')}, manifest, "sent no token"),
        ({"blobs": (202, b"", {"Location": "http://[::1/"})}, upload, "no HTTP"),
        ({"manifests": (307, b"", {"Location": "http://[::1/"})}, manifest, "no HTTP"),
        ({"manifests": (307, b"", {"Location": "http://\xff/"})}, manifest, "no HTTP"),
        ({"manifests": less_than_nothing}, manifest, "no HTTP"),
    ],
)
def test_what_is_no_answer_is_one_of_a_registry_that_is_away(tmp_path, says, ask, words):
    with contextlib.closing(Hostile(**says)) as server, pytest.raises(errors.Away, match=words):
        asked_of(server, tmp_path, ask)


def test_a_token_that_no_header_can_carry_is_in_no_message():
    with web.Session(addresses.ANY_PRIVATE) as session, contextlib.closing(Hostile()) as server:
        session.auth = lambda request: request.headers.update(Authorization="Bearer secret\nx") or request
        with pytest.raises(errors.Away, match="no HTTP") as raised, web.asking("the hub"):
            session.get(server.url)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("body", [DEEP, b'{"layers": [{"digest": "sha256:%064d", "size": 1%0400d}]}' % (0, 0)])
def test_what_is_no_manifest(body):
    with pytest.raises(errors.Unusable, match="the image has"):
        manifests.read("the image", lambda _digest: body)


def test_why_not_is_told_without_a_text_that_cannot_be_read(tmp_path):
    with (
        contextlib.closing(Hostile(manifests=(403, DEEP), token=(200, b'{"token": "a"}'))) as server,
        pytest.raises(errors.Denied, match="403 Forbidden"),
    ):
        asked_of(server, tmp_path, manifest)


def test_a_registrys_words_move_no_cursor(tmp_path):
    said = b'{"errors": [{"code": "\\u001b[2J\\u202e", "message": "\\ud800"}]}'
    with (
        contextlib.closing(Hostile(manifests=(403, said), token=(200, b'{"token": "a"}'))) as server,
        pytest.raises(errors.Denied) as raised,
    ):
        asked_of(server, tmp_path, manifest)
    assert "403 \\x1b[2J\\u202e: \\ud800" in str(raised.value)


@pytest.mark.parametrize("text", [DEEP, b"{", b"\xff", "[" * 100_000], ids=["deep", "cut", "bytes", "text"])
def test_what_is_no_json(text):
    with pytest.raises(ValueError, match=r"."):
        strangers.parsed(text)
