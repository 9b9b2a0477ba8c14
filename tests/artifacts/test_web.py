"""What the library's errors mean, and sessions that are cut off."""

import contextlib
import socket
import threading

import pytest
import requests

from artifacts import addresses, errors, web
from tests.tuning import servers
from tests.tuning.conftest import certificate  # noqa: F401


@pytest.fixture
def session():
    with web.Session(addresses.ANY_PRIVATE) as made:
        yield made


class Endless(servers.Server):
    """Answers nothing, or begins an answer that has no end, until the other side is gone."""

    def __init__(self, *, begins, **options):
        super().__init__(**options)
        self.begins, self.there, self.gone = begins, threading.Event(), threading.Event()

    def answer(self, request):
        if self.begins:
            self.reply(request, 200, b"x", {"Content-Length": str(1 << 30)})
        self.there.set()
        with contextlib.suppress(OSError):
            request.connection.recv(1)
        self.gone.set()


@pytest.mark.parametrize("begins", [False, True], ids=["no answer", "half an answer"])
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
def test_what_another_thread_waits_for_is_cut_off(session, certificate, monkeypatch, begins, secure):  # noqa: F811
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate[0]))
    raised = []

    def ask():
        try:
            session.get(url).content  # noqa: B018
        except requests.RequestException as error:
            raised.append(error)

    with contextlib.closing(Endless(begins=begins, tls=certificate if secure else None)) as server:
        url = f"http{'s' if secure else ''}://localhost:{server.port}/"
        asking = threading.Thread(target=ask)
        asking.start()
        server.there.wait()
        session.cut()
        asking.join()  # without a timeout of its own it would wait for ever
        server.gone.wait()
        with pytest.raises(requests.ConnectionError, match="cut off at this end"):
            session.get(url)
    assert len(raised) == 1
    assert session.pause(3600), "and nobody sleeps on"


@pytest.mark.parametrize(
    ("url", "kind", "words"),
    [
        (
            "https://localhost:{}/",
            errors.HostRefused,
            "not trusted .*CERTIFICATE_VERIFY_FAILED.*a CA bundle",
        ),
        ("http://localhost:{}/", errors.Away, "the server does not answer"),
        ("http://[::1/", errors.HostRefused, "this is no URL"),
        ("http://169.254.169.254/", errors.HostRefused, "never allowed"),
        (f"http://{'x' * 64}.example/", errors.Away, "check its spelling"),
    ],
)
def test_what_the_librarys_errors_mean(session, certificate, url, kind, words):  # noqa: F811
    with (
        contextlib.closing(servers.Files(tls=certificate)) as server,
        pytest.raises(kind, match=words) as raised,
        web.asking("the server"),
    ):
        session.get(url.format(server.port))
    assert type(raised.value) in (kind, *kind.__subclasses__())


def test_a_server_of_plain_http_is_told_from_a_bad_certificate(session):
    with (
        contextlib.closing(servers.Files()) as server,
        pytest.raises(errors.HostRefused, match="does not speak TLS"),
        web.asking("the server"),
    ):
        session.get(f"https://{server.host}/")


def tunnel(listener):
    """One connection through a proxy, to wherever it asks for."""
    near, _ = listener.accept()
    wanted = near.recv(4096).split()[1].decode()
    with near, socket.create_connection(wanted.rsplit(":", 1)) as far:
        near.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        back = threading.Thread(target=pump, args=(far, near))
        back.start()
        pump(near, far)
        back.join()


def pump(source, target):
    with contextlib.suppress(OSError):
        while data := source.recv(4096):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


def test_tls_goes_through_a_proxy_and_its_certificate_is_the_servers(session, certificate, monkeypatch):  # noqa: F811
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate[0]))
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with contextlib.closing(servers.Files(tls=certificate)) as server, socket.create_server(("", 0)) as listener:
        server.files["/a"] = b"content"
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{listener.getsockname()[1]}")
        through = threading.Thread(target=tunnel, args=(listener,))
        through.start()
        assert session.get(f"https://localhost:{server.port}/a").content == b"content"
        session.close()
        through.join()


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (302, errors.Denied),
        (400, errors.Denied),
        (401, errors.Unauthorized),
        (403, errors.Denied),
        (404, errors.NotFound),
        (413, errors.Denied),
        (429, errors.Away),
        (500, errors.Away),
        (503, errors.Away),
    ],
)
def test_what_a_status_means(status, kind):
    assert errors.of_status(status) is kind


def test_errors_are_called_by_the_nearest_name_above_them():
    table = {errors.ArtifactError: ValueError, errors.Denied: PermissionError}
    with (
        pytest.raises(PermissionError, match=r"^field: no; log in$"),
        errors.translated(table, "field: ", {errors.Denied: "log in", errors.NotFound: "push it"}),
    ):
        raise errors.Unauthorized("no")
    with pytest.raises(ValueError, match=r"^no$"), errors.translated(table):
        raise errors.TooLarge("no")
    with pytest.raises(errors.Away), errors.translated({errors.Denied: PermissionError}):
        raise errors.Away("no")


class Torrent(servers.Server):
    """Answers what was asked with a body that goes on for as long as anybody reads it."""

    def __init__(self, status, headers=None):
        super().__init__()
        self.status, self.headers, self.sent = status, headers or {}, 0

    def answer(self, request):
        if request.path == "/end":
            self.reply(request, 200, b"here")
            return
        request.send_response(self.status)
        for name, value in {"Content-Length": str(1 << 34), **self.headers}.items():
            request.send_header(name, value)
        request.end_headers()
        for _ in range(1 << 10):
            request.wfile.write(bytes(1 << 20))
            self.sent += 1 << 20


def test_an_answer_without_end_is_read_to_a_limit(session):
    with contextlib.closing(Torrent(200)) as server:
        assert len(session.get(server.url).content) == 16 << 20
        assert server.sent < 100 << 20, "and the connection is closed"


def test_of_a_redirect_nothing_but_the_way_is_read(session):
    with contextlib.closing(Torrent(302, {"Location": "/end"})) as server:
        assert session.get(server.url, stream=True).content == b"here"
        assert server.sent < 100 << 20
