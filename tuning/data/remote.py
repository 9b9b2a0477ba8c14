"""Files behind addresses: which hosts are asked, with whose token, and what their answers mean. Writes no files.

Who may be connected to is decided in `artifacts.addresses`. Redirects are followed here, one by one, so that each is
judged. The hub is asked wherever the operator says that it is, with the token that the Workspace names; the token goes
along no redirect to another host.
"""

import contextlib
import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import NamedTuple, Self
from urllib.parse import unquote, urljoin, urlsplit

import requests
import requests.auth
import urllib3

from artifacts import addresses, errors, strangers, web
from artifacts.weights import hub
from tuning.errors import DataInvalid, DataNotFound, DataRefused, DataUnreachable, TuningError

READ_SECONDS = 20.0
REDIRECTS = 5


class Source(NamedTuple):
    """One URL of the user's, and what messages call it."""

    field: str
    url: str
    size: int = 0
    """In bytes, where somebody told."""

    @property
    def label(self) -> str:
        """The field and the URL without secrets; the field alone where nobody can tell what in the URL is secret."""
        try:
            return f"{self.field} ({addresses.shown(self.url)})"
        except ValueError:
            return self.field

    @property
    def name(self) -> str:
        """The last part of the URL's path, without query, as a plain file name."""
        try:
            path = unquote(urlsplit(self.url).path)
        except ValueError:
            path = ""
        return re.sub(r"[^A-Za-z0-9._-]", "_", PurePosixPath(path).name)[-100:] or "data"


class Remote:
    """Hosts as they may be asked; not for several threads."""

    def __init__(self, policy: addresses.Policy) -> None:
        self._policy = policy
        self._session = web.Session(policy)
        self._hub_session = web.Session(addresses.ANY_PRIVATE)
        self.hub = hub.endpoint()
        self._token = hub.token()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()
        self._hub_session.close()

    def open(self, url: str, headers: dict[str, str]) -> requests.Response:
        """The answer behind all redirects, each of which is judged like the URL itself; the body is not read yet."""
        auth, at_hub = None, self._is_hub(url)
        for hop in range(REDIRECTS + 1):
            at_hub = at_hub and self._is_hub(url)  # nobody else's redirect is followed there with the token
            parts = addresses.split(url, addresses.ANY_PRIVATE if at_hub else self._policy)
            if hop == 0 and parts.username:  # for the host it was written for, and no other
                auth = requests.auth.HTTPBasicAuth(
                    unquote(parts.username).encode(), unquote(parts.password or "").encode()
                )
            token = {"Authorization": f"Bearer {self._token}"} if at_hub and self._token and not auth else {}
            response = (self._hub_session if at_hub else self._session).get(
                url,
                headers={"Accept-Encoding": "identity", **token, **headers},
                auth=auth,
                stream=True,
                timeout=(web.CONNECT_SECONDS, READ_SECONDS),
                allow_redirects=False,
            )
            if not response.is_redirect:
                return response
            response.close()
            url, auth = urljoin(url, response.headers["Location"]), None
        raise DataNotFound(f"more than {REDIRECTS} redirects; give the address of the file itself")

    def _is_hub(self, url: str) -> bool:
        try:
            return _origin(url) == _origin(self.hub)
        except ValueError:
            return False


def _origin(url: str) -> tuple[str, str | None, int]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80}.get(parts.scheme, 443)


def length(response: requests.Response) -> int:
    """How many bytes are announced, 0 where none are; raises what an answer without a file means."""
    status = response.status_code
    answers = f"the server answers {status} {strangers.inert(response.reason)[:100]}"
    if status in (requests.codes.ok, requests.codes.partial):
        said = response.headers.get("Content-Length", "0").strip()
        if not re.fullmatch("[0-9]{1,19}", said):
            raise DataUnreachable(
                f"the server announces {said[:60]!r} bytes, which is no number; it may do better later"
            )
        return int(said)
    if status in (408, 425, 429) or status >= 500:
        raise DataUnreachable(f"{answers}; it may do better later")
    if status in (401, 403):
        raise DataNotFound(f"{answers}; make the file public or renew a signed URL")
    if status in (404, 410):
        raise DataNotFound(f"{answers}: there is no such file; correct the URL")
    raise DataNotFound(f"{answers}, which is no file; correct the URL")


def version(response: requests.Response) -> str:
    """A strong validator, without which no continuation is tied to the same content; an encoded body has no offsets."""
    etag = response.headers.get("ETag", "")
    if response.headers.get("Content-Encoding", "identity") != "identity":
        return ""
    return etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified", "")


def pieces(response: requests.Response) -> Iterator[bytes]:
    """The body as it comes in, however slowly: the library's own pieces are whole or not there."""
    try:
        while piece := response.raw.read1(1 << 20, decode_content=True):
            yield piece
    except urllib3.exceptions.HTTPError as error:
        raise requests.ConnectionError(error) from error


@contextlib.contextmanager
def explained(source: Source) -> Iterator[None]:
    """Errors within are about this source."""
    try:
        with errors.translated(_KINDS), web.asking("the server"):
            yield
    except TuningError as error:
        page = isinstance(error, DataInvalid) and "/blob/" in source.url  # the hub's and GitHub's page about a file
        hint = "; where its address has /blob/ write /resolve/ (on GitHub /raw/)" if page else ""
        raise type(error)(f"{source.label}: {error}{hint}") from error


_KINDS: errors.Table = {
    addresses.HostUnknown: DataNotFound,
    errors.HostRefused: DataRefused,
    errors.Away: DataUnreachable,
}
