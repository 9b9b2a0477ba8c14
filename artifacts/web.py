"""HTTP as everything here speaks it: sessions that go to allowed addresses, end when they are told, leave nothing open.

An address is judged when the connection is made, and the connection goes to the very address that was judged, so a name
that changes between check and use gains nothing. Behind a proxy, which resolves names itself, only literals are judged.
"""

import contextlib
import functools
import io
import re
import socket
import threading
import weakref
from collections.abc import Iterator
from typing import Any, cast

import requests
import requests.adapters
import urllib3
import urllib3.connection
import urllib3.util.connection

from artifacts import addresses, errors

CONNECT_SECONDS = 5.0
_MOST = 16 << 20
"""Bytes of an answer that nobody reads piece by piece; of a redirect's, which the library reads too, none are taken."""


class Session(requests.Session):
    """A session whose connections go to addresses that the policy allows and nowhere else; proxies are exempt."""

    def __init__(self, policy: addresses.Policy) -> None:
        super().__init__()
        self._lines = _Lines()
        for scheme in ("http://", "https://"):
            self.mount(scheme, _Guarded(policy, self._lines))
        self.auth = _no_netrc
        self.headers["User-Agent"] = "kaito-hera"

    def cut(self) -> None:
        """Break off what is under way, in whatever thread: each request ends with an error, and so do later ones."""
        self._lines.cut()

    def pause(self, seconds: float) -> bool:
        """Sleep; at once True when the session was cut."""
        return self._lines.gone.wait(seconds)

    def close(self) -> None:
        """Close idle connections now, also while an error remembers the answer that it came from."""
        for adapter in self.adapters.values():
            if isinstance(adapter, requests.adapters.HTTPAdapter):
                for key in adapter.poolmanager.pools.keys():  # noqa: SIM118 -- not a dict: it cannot be iterated over
                    adapter.poolmanager.pools[key].close()
        super().close()


@contextlib.contextmanager
def asking(whom: str) -> Iterator[None]:
    """The library's errors within become ours; `whom` is who was asked."""
    try:
        yield
    except requests.exceptions.SSLError as error:
        why = cause(error)
        if "CERTIFICATE_VERIFY_FAILED" in why:
            raise errors.HostRefused(f"{whom} {errors.UNTRUSTED.format(why)}") from error
        if "WRONG_VERSION_NUMBER" in why or "RECORD_LAYER_FAILURE" in why:
            raise errors.HostRefused(f"{whom} {errors.NO_TLS.format(why)}") from error
        raise errors.Away(f"{whom} does not answer ({why})") from error
    except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema) as error:  # their words hold the URL
        raise errors.HostRefused("this is no URL that can be asked for; write https://host/path") from error
    except requests.RequestException as error:
        raise errors.Away(f"{whom} does not answer ({cause(error)}); check its name and whether it runs") from error
    except (
        ValueError,
        OverflowError,
    ) as error:  # of redirects and sizes of chunks; its words may hold a header's token
        raise errors.Away(f"what was sent to {whom} or came back is no HTTP ({type(error).__name__})") from error


def cause(error: requests.RequestException) -> str:
    """What went wrong, without the request's URL, whose query may be a password, and without the library's objects."""
    inner = error.args[0] if error.args else error
    return re.sub(r"^\w+\(host=[^)]*\): ", "", str(getattr(inner, "reason", inner)))[:300]


def head(response: requests.Response, limit: int) -> bytes:
    """The body, or its first bytes where it has more than `limit`; a chunked answer comes piece by piece."""
    body = b""
    for piece in response.iter_content(limit):
        body += piece
        if len(body) >= limit:
            break
    return body[:limit]


def _no_netrc(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request  # without an auth of its own, requests would look into ~/.netrc


class _Lines:
    """The sockets of one session, in all its threads."""

    def __init__(self) -> None:
        self.gone = threading.Event()
        self._lock = threading.Lock()
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()

    def add(self, connection: urllib3.connection.HTTPConnection) -> None:
        with self._lock:
            if self.gone.is_set():
                connection.close()
                raise urllib3.exceptions.NewConnectionError(connection, "cut off at this end")
            if isinstance(connection.sock, socket.socket):  # a TLS line through a TLS proxy is something else
                self._sockets.add(connection.sock)

    def cut(self) -> None:
        with self._lock:
            self.gone.set()
            for each in self._sockets:
                with contextlib.suppress(OSError):  # it is closed
                    socket.socket.shutdown(each, socket.SHUT_RDWR)  # as of TLS it would take locks of who reads


class _Guarded(requests.adapters.HTTPAdapter):
    """Hands the policy to each direct connection."""

    def __init__(self, policy: addresses.Policy, lines: _Lines) -> None:
        self._policy = policy
        self._lines = lines
        super().__init__()

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        """As of the library, which by itself would keep as many bytes as the other side sends."""
        answer = super().send(request, *args, **kwargs)
        if answer.is_redirect or not kwargs.get("stream"):
            whole = requests.Response()
            whole.raw = answer.raw
            body = b"" if answer.is_redirect else head(whole, _MOST)
            answer.raw.close()
            answer.raw = io.BytesIO(body)
        return answer

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:
        pool = cast("urllib3.HTTPConnectionPool", super().get_connection_with_tls_context(*args, **kwargs))
        kind = _TLSConnection if pool.scheme == "https" else _Connection
        policy = None if pool.proxy else self._policy
        pool.ConnectionCls = cast("Any", functools.partial(kind, policy=policy, lines=self._lines))
        return pool


class _Connection(urllib3.connection.HTTPConnection):
    def __init__(self, *args: Any, policy: addresses.Policy | None, lines: _Lines, **kwargs: Any) -> None:
        self._policy = policy
        self._lines = lines
        super().__init__(*args, **kwargs)

    def connect(self) -> None:
        super().connect()
        self._lines.add(self)

    def _new_conn(self) -> socket.socket:
        return _connect(self, self._policy) if self._policy else super()._new_conn()


class _TLSConnection(_Connection, urllib3.connection.HTTPSConnection):
    pass


def _connect(connection: urllib3.connection.HTTPConnection, policy: addresses.Policy) -> socket.socket:
    """A socket to the first address that answers, once all addresses of the name have been judged."""
    found = addresses.resolve(connection.host, connection.port)
    for address in found:
        if why := policy.refusal(address):
            raise addresses.AddressRefused(f"host {connection.host} resolves to an address that may not be used: {why}")
    trouble: OSError | None = None
    for address in found[:4]:
        try:
            made = urllib3.util.connection.create_connection(
                (str(address), connection.port or 80), CONNECT_SECONDS, socket_options=connection.socket_options
            )
        except OSError as error:
            trouble = error
        else:
            made.settimeout(cast("float", connection.timeout))  # that for each piece of what is sent
            return made
    raise urllib3.exceptions.NewConnectionError(connection, f"no address of {connection.host} answers: {trouble}")
