"""A tracker's HTTP interface: JSON in and out, to addresses that data may come from too, and along no redirect."""

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote

import requests

from artifacts import addresses, strangers, web

SECONDS = (5.0, 10.0)
"""To connect and between bytes."""
_MOST = 4 << 20

Sign = Callable[[requests.PreparedRequest], requests.PreparedRequest]


class Refused(Exception):
    """What the server says instead of doing it."""

    def __init__(self, text: str, code: str = "") -> None:
        super().__init__(text)
        self.code = code


class Api:
    """One server, asked from one thread."""

    def __init__(self, url: str, policy: addresses.Policy, sign: Sign | None) -> None:
        """Without `sign` a name and a password in the URL count. Raises ValueError for what may not be asked."""
        try:
            parts = addresses.split(url, policy)
        except addresses.AddressRefused as error:
            raise ValueError(str(error)) from error
        self._url = url.rstrip("/")
        self._session = web.Session(policy)
        if sign is None and parts.username:
            sign = basic(unquote(parts.username), unquote(parts.password or ""))
        self._session.auth = sign or self._session.auth

    def ask(self, path: str, body: Mapping[str, Any] | None = None, **query: str) -> dict[str, Any]:
        """The answer to a POST of the body, or without one to a GET."""
        with web.asking(addresses.shown(self._url)):
            answer = self._session.request(
                "GET" if body is None else "POST",
                self._url + path,
                params=query,
                json=body,
                timeout=SECONDS,
                allow_redirects=False,
                stream=True,
            )
            with answer:
                said = web.head(answer, _MOST)
        try:
            found = strangers.parsed(said)
        except ValueError:
            found = {}
        found = found if isinstance(found, dict) else {}
        if answer.status_code != requests.codes.ok:
            text = strangers.inert(str(found.get("message") or said[:200].decode(errors="replace")))[:200]
            raise Refused(f"it answers {answer.status_code} {text}", str(found.get("error_code", "")))
        return found


def basic(user: str, password: str) -> Sign:
    """A name and a password."""
    return requests.auth.HTTPBasicAuth(user.encode(), password.encode())  # a str would have to be latin-1


def bearer(token: str) -> Sign:
    """A token."""

    def sign(request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {token}"
        return request

    return sign
