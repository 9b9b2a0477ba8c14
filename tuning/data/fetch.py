"""Gets the data: looks at the head of each URL before a GPU is bought, and later downloads it. Knows no rows.

Who may be connected to is decided in `artifacts.addresses`. Redirects are followed here, one by one, so that each is
judged.
"""

import contextlib
import functools
import hashlib
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from urllib.parse import unquote, urljoin, urlsplit

import requests

from artifacts import addresses, errors, strangers, web
from tuning.data import formats
from tuning.errors import (
    ConfigInvalid,
    DataInvalid,
    DataNotFound,
    DataRefused,
    DataUnreachable,
    NodeTrouble,
    TuningError,
)
from tuning.report import log

READ_SECONDS = 20.0
PATIENCE_SECONDS = 120.0
"""Without a byte for this long, a download is given up."""

MAX_BYTES = 20 * 2**30
"""Of all files together; rows are held in memory later."""

REDIRECTS = 5


class File(NamedTuple):
    """A data file on disk."""

    field: str
    """What messages call it: `tuning.input.urls[0]`."""
    name: str
    path: Path
    size: int
    sha256: str


class Source(NamedTuple):
    """One URL of the user's, and what messages call it."""

    field: str
    url: str

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


def sources(urls: tuple[str, ...], only: str | None = None) -> list[Source]:
    """The URLs as messages know them; `only` picks the one file of that name."""
    found = [Source(f"tuning.input.urls[{index}]", url) for index, url in enumerate(urls)]
    if only is None:
        return found
    picked = [source for source in found if source.name == PurePosixPath(only).name]
    if not picked:
        names = ", ".join(source.name for source in found)
        raise ConfigInvalid(
            f"DatasetConfig.dataset_path: {only!r} is none of the input's files ({names}); name one of them"
        )
    return picked


def peek(source: Source, session: requests.Session, policy: addresses.Policy) -> formats.Format:
    """The format of the file behind the URL, from its first bytes; raises what the user must mend."""
    with _explained(source), _open(source, session, policy, {"Range": f"bytes=0-{formats.HEAD_BYTES - 1}"}) as response:
        if response.status_code == requests.codes.requested_range_not_satisfiable:
            return formats.sniff(b"")
        _length(response)
        return formats.sniff(web.head(response, formats.HEAD_BYTES))


def download(
    wanted: list[Source],
    folder: Path,
    policy: addresses.Policy,
    *,
    limit: int = MAX_BYTES,
    patience: float = PATIENCE_SECONDS,
    pause: float = 0.5,
    on_share: Callable[[float], None] = lambda _share: None,
) -> list[File]:
    """The files on disk, one after the other; `on_share` hears how much of the whole has come, from 0 to 1."""
    folder.mkdir(parents=True, exist_ok=True)
    files: list[File] = []
    with web.Session(policy) as session:
        for index, source in enumerate(wanted):
            partial = _Partial(folder / f"{index:03}-{source.name}", limit - sum(file.size for file in files))
            receive = functools.partial(_receive, source, partial, session, policy)
            for share in _patiently(source, partial, receive, patience, pause):
                on_share((index + share) / len(wanted))
            files.append(_finished(source, partial))
            log.info("%s: %d bytes, sha256 %s", source.label, partial.size, partial.digest.hexdigest())
    return files


class _Partial:
    """A file that grows, with its checksum."""

    def __init__(self, path: Path, limit: int) -> None:
        self.path = path
        self.limit = limit
        self.version = ""
        """The server's name for the content; empty when it gave none that a continuation could be tied to."""
        self.restart()

    def restart(self) -> None:
        self.size = 0
        self.digest = hashlib.sha256()
        self.path.write_bytes(b"")

    def add(self, chunks: Iterable[bytes]) -> Iterator[int]:
        """Append the chunks; yields the size after each."""
        with self.path.open("ab") as file:
            for chunk in chunks:
                if self.size + len(chunk) > self.limit:
                    raise DataInvalid(
                        f"the data is larger than the {self.limit:,} bytes left; give fewer or smaller files"
                    )
                file.write(chunk)
                self.digest.update(chunk)
                self.size += len(chunk)
                yield self.size


def _patiently(
    source: Source, partial: _Partial, receive: Callable[[], Iterator[float]], patience: float, pause: float
) -> Iterator[float]:
    """Receive until the file is whole, going on where it was cut; yields shares of it."""
    wait, before, since = pause, -1, time.monotonic()
    while True:
        try:
            with _explained(source):
                yield from receive()
        except DataUnreachable as error:
            if partial.size > before:
                wait, before, since = pause, partial.size, time.monotonic()
            if time.monotonic() + wait - since > patience:
                raise
            log.warning("%s; has %d bytes, trying again in %.1f s", error, partial.size, wait)
            time.sleep(wait)
            wait = min(2 * wait, 15)
        else:
            return


def _receive(source: Source, partial: _Partial, session: requests.Session, policy: addresses.Policy) -> Iterator[float]:
    """One request's worth of the file."""
    go_on = {"Range": f"bytes={partial.size}-", "If-Range": partial.version} if partial.size and partial.version else {}
    with _open(source, session, policy, go_on) as response:
        sent = response.headers.get("Content-Range", "")
        if response.status_code == requests.codes.requested_range_not_satisfiable and sent == f"bytes */{partial.size}":
            return  # it was whole already, and only the connection's end was bad
        length = _length(response)
        if not (response.status_code == requests.codes.partial and sent.startswith(f"bytes {partial.size}-")):
            partial.restart()
        partial.version = _version(response)
        total = partial.size + length
        _refuse_too_large(partial, total)
        for size in partial.add(response.iter_content(1 << 20)):
            yield min(1.0, size / max(total, size, 1))


def _version(response: requests.Response) -> str:
    """A strong validator, without which no continuation is tied to the same content; an encoded body has no offsets."""
    etag = response.headers.get("ETag", "")
    if response.headers.get("Content-Encoding", "identity") != "identity":
        return ""
    return etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified", "")


def _refuse_too_large(partial: _Partial, total: int) -> None:
    if total > partial.limit:
        raise DataInvalid(f"the file has {total:,} bytes, more than the {partial.limit:,} left; give smaller files")
    free = shutil.disk_usage(partial.path.parent).free
    if total - partial.size > free:
        raise NodeTrouble(
            f"the file has {total:,} bytes, the disk at {partial.path.parent} {free:,} free; give it more"
        )


def _finished(source: Source, partial: _Partial) -> File:
    with partial.path.open("rb") as file, _explained(source):
        formats.sniff(file.read(formats.HEAD_BYTES))
        formats.refuse_cut(partial.path)
    return File(source.field, source.name, partial.path, partial.size, partial.digest.hexdigest())


def _open(
    source: Source, session: requests.Session, policy: addresses.Policy, headers: dict[str, str]
) -> requests.Response:
    """The answer behind all redirects, each of which is judged like the URL itself; the body is not read yet."""
    url, auth = source.url, None
    for hop in range(REDIRECTS + 1):
        parts = addresses.split(url, policy)
        if hop == 0 and parts.username:  # for the host it was written for, and no other
            auth = (unquote(parts.username), unquote(parts.password or ""))
        response = session.get(
            url,
            headers={"Accept-Encoding": "identity", **headers},
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


def _length(response: requests.Response) -> int:
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


@contextlib.contextmanager
def _explained(source: Source) -> Iterator[None]:
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
