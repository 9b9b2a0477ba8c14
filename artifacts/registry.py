"""The one client of the distribution API: what an image is, its blobs in either direction, whether a push is let in.

A blob goes on where it was cut; one that is there is not sent again. The password goes to the registry it was written
for and that registry's own token server, never along a redirect, and never in clear text but to this machine. To pull,
nobody in particular asks first: a public image must not fail for an expired Secret.
"""

import hashlib
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self
from urllib.parse import urljoin, urlsplit

import requests

from artifacts import addresses, docker, errors, strangers, web
from artifacts import manifest as manifests

_DOCKER = "application/vnd.docker.distribution.manifest"
_MANIFESTS = f"{manifests.TYPE}, application/vnd.oci.image.index.v1+json, {_DOCKER}.v2+json, {_DOCKER}.list.v2+json"
_MANIFEST_BYTES = 4 << 20
_PIECE = 1 << 20
_SILENCE_SECONDS = 60.0
_SEND_SECONDS = 60.0
"""To connect for an upload, since the time to connect is also that for each piece that is sent."""
SENT = 64 << 10
"""The most bytes of such a piece: a slow line takes it in time."""
_SAID = 64 << 10
"""The most bytes that are read of why not."""
_TOKEN = re.compile(r"[!-~]+")
"""What a header can carry."""
_READS = frozenset({"GET", "HEAD"})
_ANONYMOUS, _PASSWORD = 1, 2
TRIES = 6
"""In a row without a byte of progress."""


class Body:
    """What is sent: its length is known, and it can be begun anew."""

    def __init__(self, size: int, pieces: Callable[[], Iterator[bytes]]) -> None:
        self._size = size
        self._pieces = pieces

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[bytes]:
        return self._pieces()


class Registry:
    """One image's registry."""

    def __init__(
        self,
        reference: docker.Reference,
        credential: docker.Credential,
        *,
        push: bool = False,
        delete: bool = False,
        silence: float = _SILENCE_SECONDS,
    ) -> None:
        self.reference = reference
        self.credential = credential
        self.base = f"https://{reference.api}"
        """Plain HTTP only ever towards this machine, as docker does, once it was seen that it speaks no TLS."""
        self._actions = "delete" if delete else "pull,push" if push else "pull"
        self._silence = silence
        self._authorization = self._challenge = ""
        self._stage = _PASSWORD if (push or delete) and credential else _ANONYMOUS
        self._turn = threading.Lock()
        self._session = web.Session(addresses.ANY_PRIVATE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    def cut(self) -> None:
        """Break off what other threads have under way here."""
        self._session.cut()

    def pause(self, seconds: float) -> None:
        """Sleep; raises Away when it was cut."""
        if self._session.pause(seconds):
            raise errors.Away(f"{self._host}: cut off at this end")

    def manifest(self, version: str = "") -> bytes:
        """A manifest, or as much of it as one may have."""
        path = f"/v2/{self.reference.repository}/manifests/{version or self.reference.version}"
        with self._call("GET", path, headers={"Accept": _MANIFESTS}, stream=True) as answer, web.asking(self._host):
            return web.head(answer, _MANIFEST_BYTES)

    def blob(self, digest: str, size: int, file: Path) -> None:
        """The blob as `file`, its digest checked; what there is of it already is not fetched again."""
        part = file.with_name(f"{file.name}.part")
        read = hashlib.sha256()
        part.touch()  # an empty blob is never asked for, and is a file all the same
        have = _hash(part, read)
        tries = 0
        while have < size:
            before = have
            try:
                have = self._append(digest, size, part, (have, read))
            except errors.Away:
                have = part.stat().st_size if part.exists() else 0
                tries = 0 if have > before else tries + 1
                if tries >= TRIES:
                    raise
                self.pause(min(tries**2, 15))
        if have != size or f"sha256:{read.hexdigest()}" != digest:
            part.unlink(missing_ok=True)
            raise errors.Away(f"{self.reference}: blob {digest} came with other bytes")
        part.replace(file)

    def _append(self, digest: str, size: int, part: Path, state: tuple[int, Any]) -> int:
        """What is missing of a blob, as far as the connection lasts."""
        have, read = state
        path = f"/v2/{self.reference.repository}/blobs/{digest}"
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
        with self._call("GET", path, headers=headers, stream=True) as answer, part.open("ab") as target:
            skip = have if answer.status_code == requests.codes.ok else 0  # a server without ranges sends all anew
            with web.asking(self._host):
                for piece in answer.iter_content(_PIECE):
                    new = piece[skip:]
                    skip = max(0, skip - len(piece))
                    have += len(new)
                    if have > size:
                        raise errors.Unusable(f"{self.reference}: blob {digest} is longer than it says")
                    target.write(new)
                    read.update(new)
        return have

    def has(self, digest: str) -> bool:
        """Whether the registry has this blob in this repository."""
        path = f"/v2/{self.reference.repository}/blobs/{digest}"
        return bool(self._call("HEAD", path, allow=(404,)).ok)

    def may_push(self) -> None:
        """Raise unless an upload would be let in: one is begun and cancelled."""
        begun = self._begin()
        if begun.startswith(f"{self.base}/"):  # never along to another host, port or without TLS
            try:
                self._send("DELETE", begun, headers=self._signature())
            except errors.ArtifactError:
                return  # not all can cancel; the session then expires by itself

    def upload(self, digest: str, body: Body) -> None:
        """Send a blob."""
        target = self._begin()
        mark = "&" if urlsplit(target).query else "?"
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(len(body))}
        if urlsplit(target)[:2] == urlsplit(self.base)[:2]:  # the host, and no less safe
            headers |= self._signature()
        answer = self._send("PUT", f"{target}{mark}digest={digest}", headers=headers, data=body)
        if answer.status_code != requests.codes.created:
            raise self._refusal(answer)

    def _begin(self) -> str:
        """Where a blob may be sent to."""
        begun = self._call("POST", f"/v2/{self.reference.repository}/blobs/uploads/")
        if begun.status_code != requests.codes.accepted:
            raise self._refusal(begun)
        with web.asking(self._host):
            return urljoin(begun.url, begun.headers.get("Location", ""))

    def tag(self, manifest: bytes) -> None:
        """Give the reference's tag to a manifest whose blobs are all there."""
        path = f"/v2/{self.reference.repository}/manifests/{self.reference.version}"
        self._call("PUT", path, headers={"Content-Type": manifests.TYPE}, data=manifest)

    def delete(self, digest: str) -> None:
        """Have the registry forget a manifest and its tags; many let nobody do that. One that is gone is no error."""
        path = f"/v2/{self.reference.repository}/manifests/{digest}"
        self._call("DELETE", path, allow=(requests.codes.not_found,))

    def _call(self, method: str, path: str, *, allow: tuple[int, ...] = (), **more: Any) -> requests.Response:
        """The answer, after whatever authentication the registry asks for."""
        own = more.pop("headers", {})
        more["allow_redirects"] = method in _READS  # where large files are kept; a write goes where it was sent
        answer = self._signed(method, path, own, **more)
        try:
            for stage in range(self._stage, _PASSWORD + 1):
                if answer.status_code not in {401, 403}:
                    break
                used = str(answer.request.headers.get("Authorization", ""))
                if self._authenticate(answer.headers.get("WWW-Authenticate", ""), used, stage):
                    answer.close()  # a body that nobody reads holds its connection
                    answer = self._signed(method, path, own, **more)
        except BaseException:
            answer.close()
            raise
        if answer.status_code < requests.codes.multiple_choices or answer.status_code in allow:
            return answer
        with answer:
            raise self._refusal(answer)

    def _signed(self, method: str, path: str, headers: Mapping[str, str], **more: Any) -> requests.Response:
        return self._send(method, self.base + path, headers={**headers, **self._signature()}, **more)

    def _signature(self) -> dict[str, str]:
        return {"Authorization": self._authorization} if self._authorization else {}

    def _send(self, method: str, url: str, *, allow_redirects: bool = False, **more: Any) -> requests.Response:
        """One request; answers that another try may change are raised. A redirect elsewhere goes without password."""
        timeout = (_SEND_SECONDS if isinstance(more.get("data"), Body) else web.CONNECT_SECONDS, self._silence)
        try:
            with web.asking(self._host):
                answer = self._session.request(method, url, timeout=timeout, allow_redirects=allow_redirects, **more)
        except (errors.Away, errors.HostRefused) as error:
            if not self._may_be_plain(url, error):
                raise
            self.base = f"http://{self.reference.api}"
            return self._send(method, url.replace("https:", "http:", 1), allow_redirects=allow_redirects, **more)
        if errors.of_status(answer.status_code) is errors.Away:
            with answer:
                raise errors.Away(f"{self._host} answers {_said(answer)}")
        return answer

    def _may_be_plain(self, url: str, error: errors.ArtifactError) -> bool:
        """Whether plain HTTP may be tried instead: on this machine, unless a certificate was seen."""
        return (
            url.startswith(f"https://{self.reference.api}/")
            and docker.is_this_machine(self.reference.host)
            and "CERTIFICATE_VERIFY_FAILED" not in str(error)
        )

    def _authenticate(self, challenge: str, used: str, stage: int) -> bool:
        """Find something else to say than what was `used`; False when there is nothing. One thread at a time."""
        with self._turn:
            if self._authorization != used:
                return True  # another thread has found it
            self._challenge = challenge or self._challenge
            kind, _, rest = self._challenge.partition(" ")
            given = self.credential if stage == _PASSWORD else docker.Credential()
            found = ""
            if kind.lower() not in {"", "basic", "bearer"}:
                raise errors.HostRefused(f"{self._host} asks for unknown authentication {self._challenge[:200]!r}")
            if kind.lower() == "basic" and given:
                found = given.basic()
            elif kind.lower() == "bearer" and (given or stage == _ANONYMOUS):
                token = self._token(dict(re.findall(r'(\w+)="([^"]*)"', rest)), given)
                found = f"Bearer {token}" if token else ""
            if found:
                self._authorization, self._stage = found, stage
            return bool(found)

    def _token(self, fields: Mapping[str, str], given: docker.Credential) -> str:
        """A token from the registry's token server; empty when it gives none to nobody in particular."""
        realm = fields.get("realm", "")
        if not realm:
            raise errors.HostRefused(f"{self._host} wants a token and names no server (realm) for it")
        if given and not docker.same_owner(realm, self.base):
            raise errors.HostRefused(
                f"{self._host} wants the password sent to {realm[:200]!r}, not its own host; "
                "use a registry whose tokens come from its own domain"
            )
        scope = f"repository:{self.reference.repository}:{self._actions}"
        asked = {"service": fields.get("service", ""), "scope": scope}
        if given.identity_token:  # an OAuth2 refresh token, which `az acr login` leaves in place of a password
            form = {"grant_type": "refresh_token", "refresh_token": given.identity_token, "client_id": "kaito-hera"}
            answer = self._send("POST", realm, data=form | asked)
        else:
            headers = {"Authorization": given.basic()} if given else {}
            answer = self._send("GET", realm, headers=headers, params=asked)
        if answer.status_code != requests.codes.ok:
            if given:
                raise self._wrong_password(answer)
            return ""
        try:
            said = strangers.parsed(answer.content)
            token = said.get("access_token") or said["token"]
            if _TOKEN.fullmatch(token):
                return str(token)
        except (ValueError, KeyError, AttributeError, TypeError):
            pass
        raise errors.Away(f"{self._host}: its token server sent no token")

    def _refusal(self, answer: requests.Response) -> errors.ArtifactError:
        """Why the last answer is none; a 401 in spite of a token is about the right, not about the password."""
        kind, said = errors.of_status(answer.status_code), _said(answer)
        if kind is errors.NotFound and answer.request.method in _READS:
            return kind(f"the registry has no image {self.reference}: {said}; push it or correct the name")
        if kind is errors.Unauthorized and not self.credential:
            return kind(f"{self._host} asks for a password for {self.reference.repository} ({said})")
        if kind is errors.Unauthorized and self._authorization.startswith("Basic"):
            return self._wrong_password(answer)
        who = self.credential.username or "the token's account" if self.credential else "anybody"
        what = {"delete": "delete from", "pull": "pull from"}.get(self._actions, "push to")
        return errors.Denied(f"{self._host} does not let {who} {what} {self.reference.repository}: {said}")

    def _wrong_password(self, answer: requests.Response) -> errors.Unauthorized:
        who = f"user {self.credential.username!r}" if self.credential.username else "the token"
        return errors.Unauthorized(f"{self._host} does not accept {who} and its password ({_said(answer)})")

    @property
    def _host(self) -> str:
        return f"registry {self.reference.host}"


def of(image: str, auth: Path | None, *, push: bool = False, silence: float = _SILENCE_SECONDS) -> Registry:
    """The registry of an image, and what a docker config has for it; None is where docker and podman keep theirs."""
    try:
        reference = docker.parse(image)
    except ValueError as error:
        raise errors.NotFound(str(error)) from error
    return Registry(reference, docker.find(auth, reference), push=push, silence=silence)


def _said(answer: requests.Response) -> str:
    """Status and, where the body is the API's own kind of error, its text: other bodies may be anything."""
    try:
        first = strangers.parsed(next(answer.iter_content(_SAID), b""))["errors"][0]
        return f"{answer.status_code} {first['code']}: {first.get('message', '')}"[:300]
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError, requests.RequestException):
        return f"{answer.status_code} {answer.reason}"[:300]


def _hash(file: Path, into: Any) -> int:
    """Feed a file to a hash; its size."""
    with file.open("rb") as source:
        while piece := source.read(_PIECE):
            into.update(piece)
    return file.stat().st_size
