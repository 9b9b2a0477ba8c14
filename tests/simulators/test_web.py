"""What a client sees of the server under all simulators."""

import contextlib
import http.client
import os
import socket

import pytest

from tests.cluster.simulators import web

DATA = os.urandom(3 << 20)


@pytest.fixture
def server(tls, tmp_path):
    (tmp_path / "file").write_bytes(DATA)

    def handle(request):
        match request.segments:
            case ("file",):
                return web.Answer(200, tmp_path / "file", {"ETag": '"v1"'})
            case ("echo", *_):
                told = {"method": request.method, "query": request.query, "body": request.body.decode()}
                return web.json_answer(200, told, {"Segments": ",".join(request.segments)})
            case ("nothing",):
                return web.Answer(204)
        raise RuntimeError("a route that breaks")

    with web.serving(("127.0.0.1", 0), tls.cert, tls.key, handle=handle, log=lambda *_: None) as running:
        yield running


@pytest.fixture
def client(server, tls):
    connection = http.client.HTTPSConnection("127.0.0.1", server.port, context=tls.context, timeout=10)
    with contextlib.closing(connection):
        yield connection


def ask(client, method, path, body=None, **headers):
    client.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    answer = client.getresponse()
    return answer, answer.read()


def test_one_connection_serves_many_requests(client):
    for _ in range(3):
        answer, body = ask(client, "POST", "/echo/a%2Fb?x=1&x=2&flag=", "hello")
        assert (answer.status, body) == (200, b'{"method": "POST", "query": {"x": "2", "flag": ""}, "body": "hello"}')
        assert answer.headers["Segments"] == "echo,a/b"
        first = client.sock
        assert ask(client, "GET", "/nothing")[0].status == 204
        assert client.sock is first


def test_head_says_what_get_would_send(client):
    head, nothing = ask(client, "HEAD", "/file")
    get, body = ask(client, "GET", "/file")
    assert (head.status, nothing, body) == (200, b"", DATA)
    assert head.headers["Content-Length"] == get.headers["Content-Length"] == str(len(DATA))
    assert head.headers["ETag"] == '"v1"'


@pytest.mark.parametrize(
    ("wanted", "start", "end"),
    [
        pytest.param("bytes=0-9", 0, 10, id="first bytes"),
        pytest.param("bytes=1000000-", 1000000, len(DATA), id="the rest"),
        pytest.param("bytes=-7", len(DATA) - 7, len(DATA), id="last bytes"),
        pytest.param("bytes=5-99999999", 5, len(DATA), id="past the end"),
    ],
)
def test_a_range_is_a_part(client, wanted, start, end):
    answer, body = ask(client, "GET", "/file", Range=wanted)
    assert (answer.status, body) == (206, DATA[start:end])
    assert answer.headers["Content-Range"] == f"bytes {start}-{end - 1}/{len(DATA)}"


def test_a_range_outside_is_refused_with_the_size(client):
    answer, _ = ask(client, "GET", "/file", Range=f"bytes={len(DATA)}-")
    assert (answer.status, answer.headers["Content-Range"]) == (416, f"bytes */{len(DATA)}")


def test_a_range_of_an_older_version_is_answered_whole(client):
    assert ask(client, "GET", "/file", Range="bytes=5-", If_Range='"v0"')[1] == DATA
    assert ask(client, "GET", "/file", Range="bytes=5-", If_Range='"v1"')[1] == DATA[5:]


def test_what_the_client_has_is_not_sent_again(client):
    answer, body = ask(client, "GET", "/file", If_None_Match='"v1"')
    assert (answer.status, body) == (304, b"")


def test_a_broken_route_is_a_500_that_says_why(client):
    answer, body = ask(client, "GET", "/elsewhere")
    assert answer.status == 500
    assert b"a route that breaks" in body


def test_a_silent_client_does_not_keep_others_waiting(server, client):
    with socket.create_connection(("127.0.0.1", server.port)):
        assert ask(client, "GET", "/echo")[0].status == 200
