"""An HTTPS server for the simulators: one thread a connection, HTTP/1.1 keep-alive, correct HEAD, Range and conditions.

It turns what comes over the wire into a `Request`, asks one function for the `Answer` and sends that. It knows no route
and no name of any service. `with serving(...)` is for tests, `run(...)` for a command line.
"""

import argparse
import contextlib
import email.message
import io
import json
import re
import signal
import socket
import socketserver
import ssl
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

CHUNK = 1 << 20
IDLE_SECONDS = 120


class Request(NamedTuple):
    """One request; `segments` are the decoded parts of the path, `query` the last value of each key."""

    method: str
    host: str
    target: str
    segments: tuple[str, ...]
    query: dict[str, str]
    headers: email.message.Message
    body: bytes


class Answer(NamedTuple):
    """One answer; a body that is a path is a file, of which a client may ask for a part."""

    status: int
    body: bytes | Path = b""
    headers: Mapping[str, str] = {}  # never changed: an answer is read only


Handle = Callable[[Request], Answer]
Log = Callable[[Request, int, float], None]


def json_answer(status: int, document: Any, headers: Mapping[str, str] | None = None) -> Answer:
    body = json.dumps(document).encode()
    return Answer(status, body, {"Content-Type": "application/json; charset=utf-8", **(headers or {})})


def say(request: Request, status: int, seconds: float) -> None:
    """The log of a command line: one line a request on stderr."""
    print(f"{request.method} {request.host}{request.target} {status} {seconds:.3f}s", file=sys.stderr, flush=True)


@contextlib.contextmanager
def serving(listen: tuple[str, int], cert: Path, key: Path, *, handle: Handle, log: Log = say) -> Iterator["Server"]:
    """A server in a thread of its own, gone with all its connections when the block ends."""
    with Server(listen, cert, key, handle=handle, log=log) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def run(listen: tuple[str, int], cert: Path, key: Path, *, handle: Handle, log: Log = say) -> None:
    """Serve until SIGTERM or SIGINT."""
    with Server(listen, cert, key, handle=handle, log=log) as server:
        for number in (signal.SIGTERM, signal.SIGINT):
            # shutdown() waits for serve_forever, which this very thread runs.
            signal.signal(number, lambda *_: threading.Thread(target=server.shutdown).start())
        print(f"listening on {listen[0]}:{server.port}", flush=True)
        server.serve_forever()


def arguments(package: ModuleType) -> argparse.ArgumentParser:
    """The command line that all servers have; the package's docstring is the help."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {package.__name__}",
        description=package.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--listen", type=_address, required=True, metavar="IP:PORT")
    parser.add_argument("--cert", type=Path, required=True, metavar="FILE")
    parser.add_argument("--key", type=Path, required=True, metavar="FILE")
    return parser


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)


class Server(socketserver.ThreadingTCPServer):
    """The listening socket and the connections that are open."""

    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, listen: tuple[str, int], cert: Path, key: Path, *, handle: Handle, log: Log) -> None:
        self.handle, self.log = handle, log
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(cert, key)
        self._tls.set_alpn_protocols(["http/1.1"])
        self._open: set[socket.socket] = set()
        super().__init__(listen, _Connection)

    @property
    def port(self) -> int:
        return self.server_address[1]

    def finish_request(self, request: Any, client_address: Any) -> None:
        # The handshake belongs to the connection's thread: in accept(), one silent client would stop all others.
        request.settimeout(IDLE_SECONDS)
        with self._tls.wrap_socket(request, server_side=True) as connection:
            self._open.add(connection)
            try:
                super().finish_request(connection, client_address)
            finally:
                self._open.discard(connection)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), OSError):  # a client that went away is none of our errors
            traceback.print_exc()

    def server_close(self) -> None:
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        super().server_close()


class _Connection(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "simulator"
    disable_nagle_algorithm = True
    server: Server

    def parse_request(self) -> bool:
        good = super().parse_request()
        if good and "chunked" in self.headers.get("Transfer-Encoding", ""):
            self.send_error(411, "send Content-Length: this simulator reads no chunked bodies")
            return False
        return good

    def _answer(self) -> None:
        started = time.monotonic()
        request = self._request()
        try:
            answer = self.server.handle(request)
        except Exception:
            traceback.print_exc()
            answer = json_answer(500, {"error": f"the simulator failed: {traceback.format_exc(limit=-1)}"})
        part = _part(request, answer)
        # Before anything is sent: whoever has an answer finds its line in the log.
        self.server.log(request, part.status, time.monotonic() - started)
        self._send(request, answer.body, part)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = _answer

    def _request(self) -> Request:
        url = urlsplit(self.path)
        return Request(
            method=self.command,
            host=self.headers.get("Host", ""),
            target=self.path,
            segments=tuple(unquote(part) for part in url.path.split("/") if part),
            query={key: values[-1] for key, values in parse_qs(url.query, keep_blank_values=True).items()},
            headers=self.headers,
            body=self.rfile.read(int(self.headers.get("Content-Length") or 0)),
        )

    def _send(self, request: Request, body: bytes | Path, part: "_Part") -> None:
        self.send_response(part.status)
        for name, value in part.headers.items():
            self.send_header(name, value)
        without_body = part.status in {204, 304}
        if not without_body:
            self.send_header("Content-Length", str(part.length))
        self.end_headers()
        if request.method == "HEAD" or part.length == 0 or without_body:
            return
        if isinstance(body, bytes):
            self.wfile.write(body)
        else:
            with body.open("rb") as file:
                file.seek(part.start)
                _copy(file, self.wfile, part.length)

    def log_message(self, *_: Any) -> None:
        """The server's `log` is told instead."""


class _Part(NamedTuple):
    """What is really sent of an answer; start and length in bytes."""

    status: int
    headers: Mapping[str, str]
    start: int
    length: int


def _part(request: Request, answer: Answer) -> _Part:
    if isinstance(answer.body, bytes):
        return _Part(answer.status, answer.headers, 0, len(answer.body))
    size = answer.body.stat().st_size
    headers = {"Accept-Ranges": "bytes", **answer.headers}
    etag = headers.get("ETag")
    if etag and etag in request.headers.get("If-None-Match", ""):
        return _Part(304, headers, 0, 0)
    wanted = request.headers.get("Range", "")
    if request.headers.get("If-Range", etag) != etag:
        wanted = ""  # the client has a part of another version
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", wanted.strip())
    if match is None or match.groups() == ("", ""):
        return _Part(answer.status, headers, 0, size)
    first, last = match.groups()
    start = int(first) if first else max(0, size - int(last))
    end = min(int(last), size - 1) if first and last else size - 1
    if start > end:
        return _Part(416, {**headers, "Content-Range": f"bytes */{size}"}, 0, 0)
    return _Part(206, {**headers, "Content-Range": f"bytes {start}-{end}/{size}"}, start, end - start + 1)


def _copy(source: BinaryIO, target: io.BufferedIOBase, length: int) -> None:
    while length > 0:
        chunk = source.read(min(length, CHUNK))
        if not chunk:
            raise ValueError(f"{source.name} became shorter while it was sent: {length} bytes are missing")
        target.write(chunk)
        length -= len(chunk)
