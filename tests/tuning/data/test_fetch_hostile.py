"""Servers of data and images that speak no HTTP or JSON: told with the field, at the check and at the download."""

import contextlib

import pytest

from tests.tuning import servers
from tests.tuning.data.test_fetch import LOOPBACK
from tuning.data import fetch, heads
from tuning.data.remote import Remote
from tuning.errors import DataNotFound, DataUnreachable
from tuning.output import registry
from tuning.training_config import DatasetConfig


class Raw(servers.Server):
    """Sends the same bytes to everybody."""

    def __init__(self, said):
        super().__init__()
        self.said = said

    def answer(self, request):
        request.wfile.write(self.said)
        request.close_connection = True


def length(text):
    return b"HTTP/1.1 200 OK\r\nContent-Length: " + text + b'\r\n\r\n{"a": 1}\n'


def moved(to):
    return b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: " + to + b"\r\n\r\n"


def peek(source, _folder=None):
    with Remote(LOOPBACK) as opened:
        heads.of_source(source, opened, DatasetConfig())


def download(source, folder):
    with Remote(LOOPBACK) as opened:
        fetch.download([source], folder, opened, pace=fetch.Pace(patience=0.0))


ANSWERS = {
    "no number": length(b"abc"),
    "two numbers": length(b"100, 100"),
    "less than nothing": length(b"-5"),
    "5000 digits": length(b"9" * 5000),
    "open bracket": moved(b"http://[::1/"),
    "no text": moved(b"http://\xff\xfe/"),
    "chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("said", ANSWERS.values(), ids=ANSWERS)
@pytest.mark.parametrize("step", [peek, download])
def test_what_is_no_http_is_told_with_the_field(tmp_path, said, step):
    with contextlib.closing(Raw(said)) as server:
        (source,) = fetch.sources((f"{server.url}/a.json",))
        with pytest.raises(DataUnreachable, match=r"^tuning\.input\.urls\[0\] "):
            step(source, tmp_path)


def test_a_servers_reason_moves_no_cursor():
    with contextlib.closing(Raw(b"HTTP/1.1 404 \x1b[2Jgone\r\nContent-Length: 0\r\n\r\n")) as server:
        (source,) = fetch.sources((f"{server.url}/a.json",))
        with pytest.raises(DataNotFound, match=r"404 \\x1b\[2Jgone: there is no such file"):
            peek(source)


class Deep(servers.Server):
    """A registry whose every answer is brackets without end."""

    def answer(self, request):
        self.reply(request, 202 if request.command == "POST" else 200, b"[" * 100_000, {"Location": "/uploads/1"})


def test_what_no_image_has_under_the_tag_was_made_by_nobody(tmp_path):
    with contextlib.closing(Deep()) as server:
        assert registry.Registry(f"{server.host}/team/a:1", tmp_path / "none").ask("an intent") == ""
