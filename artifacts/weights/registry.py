"""A registry, as far as large files need it: manifests, blobs that go on where they were cut, blobs that are there.

Other images go through skopeo, which begins a cut blob anew and wants the whole image on the disk once more. The
password goes to the registry it was written for and that registry's own token server, never along a redirect, and never
in clear text but to this machine.
"""

import contextlib
import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self
from urllib.parse import urljoin, urlsplit

import requests

from artifacts import addresses, docker, web
from artifacts.weights import errors

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_DOCKER = "application/vnd.docker.distribution.manifest"
_MANIFESTS = f"{MANIFEST}, application/vnd.oci.image.index.v1+json, {_DOCKER}.v2+json, {_DOCKER}.list.v2+json"
_MANIFEST_BYTES = 4 << 20
_PIECE = 1 << 20
_CONNECT_SECONDS = 5.0
_SILENCE_SECONDS = 60.0
_SEND_SECONDS = 60.0
"""To connect for an upload, since the time to connect is also that for each piece that is sent."""
SENT = 64 << 10
"""The most bytes of such a piece: a slow line takes it in time."""
_SAID = 64 << 10
"""The most bytes that are read of why not."""
_READS = frozenset({"GET", "HEAD"})
_ANONYMOUS, _PASSWORD = 1, 2
"""How to be let in: a public image must not fail for an expired secret, so without a password first."""
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
        self, image: str, auth: Path | None, *, field: str, push: bool = False, silence: float = _SILENCE_SECONDS
    ) -> None:
        self.field = field
        try:
            self.reference = docker.parse(image)
        except ValueError as error:
            raise errors.ModelNotFound(f"{field}: {error}") from error
        self._credential = docker.find(auth, self.reference)
        self._base = f"https://{self.reference.api}"
        self._actions = "pull,push" if push else "pull"
        self._silence = silence
        self._authorization = self._challenge = ""
        self._stage = _ANONYMOUS
        self._turn = threading.Lock()
        self._session = web.Session(addresses.ANY_PRIVATE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    def manifest(self, version: str = "") -> tuple[bytes, str]:
        """A manifest and its digest."""
        path = f"/v2/{self.reference.repository}/manifests/{version or self.reference.version}"
        with self._call("GET", path, headers={"Accept": _MANIFESTS}, stream=True) as answer:
            body = b""
            for piece in self._pieces(answer):
                body += piece
                if len(body) > _MANIFEST_BYTES:
                    break
        digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
        if version.startswith("sha256:") and digest != version:
            raise errors.RegistryUnavailable(f"{self.field}: {self.reference}: the registry sent another manifest")
        return body, digest

    def blob(self, digest: str, size: int, file: Path) -> None:
        """The blob as `file`, its digest checked; what there is of it already is not fetched again."""
        part = file.with_name(f"{file.name}.part")
        read = hashlib.sha256()
        have = _hash(part, read) if part.exists() else 0
        tries = 0
        while have < size:
            before = have
            try:
                have = self._append(digest, size, part, (have, read))
            except errors.RegistryUnavailable:
                have = part.stat().st_size if part.exists() else 0
                tries = 0 if have > before else tries + 1
                if tries >= TRIES:
                    raise
                time.sleep(min(tries**2, 15))
        if have != size or f"sha256:{read.hexdigest()}" != digest:
            part.unlink(missing_ok=True)
            raise errors.RegistryUnavailable(f"{self.field}: {self.reference}: blob {digest} came with other bytes")
        part.replace(file)

    def _append(self, digest: str, size: int, part: Path, state: tuple[int, Any]) -> int:
        """What is missing of a blob, as far as the connection lasts."""
        have, read = state
        path = f"/v2/{self.reference.repository}/blobs/{digest}"
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
        with self._call("GET", path, headers=headers, stream=True) as answer, part.open("ab") as target:
            skip = have if answer.status_code == requests.codes.ok else 0  # a server without ranges sends all anew
            for piece in self._pieces(answer):
                new = piece[skip:]
                skip = max(0, skip - len(piece))
                have += len(new)
                if have > size:
                    raise errors.ModelUnusable(f"{self.field}: {self.reference}: blob {digest} is longer than it says")
                target.write(new)
                read.update(new)
        return have

    def has(self, digest: str) -> bool:
        """Whether the registry has this blob in this repository."""
        path = f"/v2/{self.reference.repository}/blobs/{digest}"
        return bool(self._call("HEAD", path, allow=(404,)).ok)

    def upload(self, digest: str, body: Body) -> None:
        """Send a blob."""
        begun = self._call("POST", f"/v2/{self.reference.repository}/blobs/uploads/")
        target = urljoin(begun.url, begun.headers.get("Location", ""))
        mark = "&" if urlsplit(target).query else "?"
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(len(body))}
        if self._authorization and urlsplit(target)[:2] == urlsplit(self._base)[:2]:  # the host, and no less safe
            headers["Authorization"] = self._authorization
        answer = self._send("PUT", f"{target}{mark}digest={digest}", headers=headers, data=body)
        if answer.status_code != requests.codes.created:
            raise self._refusal(answer)

    def tag(self, manifest: bytes) -> None:
        """Give the reference's tag to a manifest whose blobs are all there."""
        path = f"/v2/{self.reference.repository}/manifests/{self.reference.version}"
        self._call("PUT", path, headers={"Content-Type": MANIFEST}, data=manifest)

    def _pieces(self, answer: requests.Response) -> Iterator[bytes]:
        try:
            yield from answer.iter_content(_PIECE)
        except requests.RequestException as error:
            raise self._unreachable(error) from error

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
        signed = {"Authorization": self._authorization} if self._authorization else {}
        return self._send(method, self._base + path, headers={**headers, **signed}, **more)

    def _send(self, method: str, url: str, *, allow_redirects: bool = False, **more: Any) -> requests.Response:
        """One request; answers that another try may change are raised. A redirect elsewhere goes without password."""
        timeout = (_SEND_SECONDS if isinstance(more.get("data"), Body) else _CONNECT_SECONDS, self._silence)
        try:
            answer = self._session.request(method, url, timeout=timeout, allow_redirects=allow_redirects, **more)
        except requests.ConnectionError as error:
            if not url.startswith(f"https://{self.reference.api}/") or not docker.is_this_machine(self.reference.host):
                raise self._unreachable(error) from error
            self._base = f"http://{self.reference.api}"
            return self._send(method, url.replace("https:", "http:", 1), allow_redirects=allow_redirects, **more)
        except requests.RequestException as error:
            raise self._unreachable(error) from error
        if answer.status_code == requests.codes.too_many_requests or answer.status_code >= 500:
            with answer:
                raise errors.RegistryUnavailable(f"{self._where}: the registry answers {_said(answer)}")
        return answer

    def _authenticate(self, challenge: str, used: str, stage: int) -> bool:
        """Find something else to say than what was `used`; False when there is nothing. One thread at a time."""
        with self._turn:
            if self._authorization != used:
                return True  # another thread has found it
            self._challenge = challenge or self._challenge
            kind, _, rest = self._challenge.partition(" ")
            given = self._credential if stage == _PASSWORD else docker.Credential()
            found = ""
            if kind.lower() == "basic" and given:
                found = given.basic()
            elif kind.lower() == "bearer" and (given or stage == _ANONYMOUS):
                token = self._token(dict(re.findall(r'(\w+)="([^"]*)"', rest)), given)
                found = f"Bearer {token}" if token else ""
            if found:
                self._authorization, self._stage = found, stage
            return bool(found)

    def _token(self, fields: Mapping[str, str], given: docker.Credential) -> str:
        """A token from the registry's token server; empty when it gives none."""
        realm = fields.get("realm", "")
        if not realm:
            raise errors.ImageForbidden(f"{self._where}: the registry wants a token and names no server (realm) for it")
        if given and not docker.same_owner(realm, self._base):
            raise errors.ImageForbidden(
                f"{self._where}: the registry wants the password sent to {realm!r}, not its own"
            )
        scope = f"repository:{self.reference.repository}:{self._actions}"
        asked = {"service": fields.get("service", ""), "scope": scope}
        if given.identity_token:
            form = {"grant_type": "refresh_token", "refresh_token": given.identity_token, "client_id": "kaito-hera"}
            answer = self._send("POST", realm, data=form | asked)
        else:
            headers = {"Authorization": given.basic()} if given else {}
            answer = self._send("GET", realm, headers=headers, params=asked)
        if answer.status_code != requests.codes.ok:
            return ""
        with contextlib.suppress(ValueError, KeyError, AttributeError):
            said = answer.json()
            return str(said.get("access_token") or said["token"])
        return ""

    def _refusal(self, answer: requests.Response) -> errors.WeightsError:
        if answer.status_code == requests.codes.not_found:
            return errors.ModelNotFound(f"{self._where}: the registry has no such image; push it or correct the name")
        if answer.status_code in {401, 403}:
            tried = "with the credentials for it" if self._credential else "and there are no credentials for it"
            return errors.ImageForbidden(
                f"{self._where}: the registry refuses to {self._actions.replace(',', ' and ')}, {tried}"
                f" ({_said(answer)}); {self._remedy}"
            )
        return errors.RegistryUnavailable(f"{self._where}: the registry answers {_said(answer)}")

    @property
    def _where(self) -> str:
        return f"{self.field}: {self.reference}"

    @property
    def _remedy(self) -> str:
        if self._actions == "pull":
            return f"name a Secret with a password for {self.reference.host} in {self.field}PullSecrets"
        return f"log in to {self.reference.host} with an account that may push there (docker login, az acr login)"

    def _unreachable(self, error: requests.RequestException) -> errors.WeightsError:
        inner = error.args[0] if error.args else error
        why = re.sub(r"^\w+\(host=[^)]*\): ", "", str(getattr(inner, "reason", inner)))[:300]
        return errors.RegistryUnavailable(f"{self._where}: the registry does not answer ({why})")


def is_digest(text: str) -> bool:
    """Whether this is a sha256 digest: what is joined to a path must be nothing else."""
    return re.fullmatch(r"sha256:[0-9a-f]{64}", text) is not None


def _said(answer: requests.Response) -> str:
    """Status and, where the body is the API's own kind of error, its text: other bodies may be anything."""
    try:
        first = json.loads(next(answer.iter_content(_SAID), b""))["errors"][0]
        return f"{answer.status_code} {first['code']}: {first.get('message', '')}"[:300]
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, requests.RequestException):
        return f"{answer.status_code} {answer.reason}"


def _hash(file: Path, into: Any) -> int:
    """Feed a file to a hash; its size."""
    with file.open("rb") as source:
        while piece := source.read(_PIECE):
            into.update(piece)
    return file.stat().st_size
