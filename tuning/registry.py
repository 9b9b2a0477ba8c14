"""Asks the registry before money is spent whether this secret may push there and whether the adapter is there already.

Speaks as much of the distribution API as that needs; skopeo moves the image later. The password goes to the registry
it was written for and to that registry's own token server, never along a redirect, and never in clear text but to
this machine.
"""

import contextlib
import hashlib
import json
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import requests

from artifacts import addresses, docker, web
from tuning import credentials
from tuning.config import INTENT
from tuning.credentials import IMAGE, SECRET
from tuning.errors import PushForbidden, PushUnauthorized, RegistryUnavailable
from tuning.report import log

READ_SECONDS = 8.0
PAUSES = (0.5, 2.0)
"""Between tries: a registry that restarts is back in seconds, and the user waits for an answer."""

MANIFEST_BYTES = 4 * 2**20
MANIFESTS = ", ".join(
    f"application/vnd.{kind}+json"
    for kind in ("oci.image.manifest.v1", "oci.image.index.v1", "docker.distribution.manifest.v2")
)


class Registry:
    """One image's registry, spoken to with the secret's entry for it."""

    def __init__(self, image: str, secret: Path, *, pauses: Sequence[float] = PAUSES) -> None:
        self.reference = credentials.parse(image)
        self.credential = credentials.find(secret, self.reference)
        self.base = f"https://{self.reference.api}"
        """Plain HTTP only ever towards this machine, as docker does."""
        self._secret = secret
        self._pauses = pauses
        self._authorization = ""
        # registries often have private addresses, unlike data that anyone may name
        self._session = web.Session(addresses.ANY_PRIVATE)

    def ask(self, intent: str) -> str:
        """The digest of the tag's image if this intent made it, else empty; raises unless a push would be let in.

        An empty intent is that of an image without one, as KAITO pushes it.
        """
        for pause in self._pauses:
            try:
                self._may_push()
                return self._digest_of(intent)
            except RegistryUnavailable as error:
                log.warning("%s; asking again in %.1f s", error, pause)
                time.sleep(pause)
        self._may_push()
        return self._digest_of(intent)

    def _may_push(self) -> None:
        """Open an upload session and cancel it."""
        response = self._call("POST", f"/v2/{self.reference.repository}/blobs/uploads/")
        if response.status_code != requests.codes.accepted:
            raise self._refusal(response)
        session = urljoin(response.url, response.headers.get("Location", ""))
        if session.startswith(f"{self.base}/"):  # never along to another host, port or without TLS
            with contextlib.suppress(RegistryUnavailable):  # not all can cancel; the session then expires by itself
                self._send("DELETE", session, self._authorization)

    def _digest_of(self, intent: str) -> str:
        path = f"/v2/{self.reference.repository}/manifests/{self.reference.version}"
        try:
            with self._call("GET", path, headers={"Accept": MANIFESTS}, stream=True) as response:
                body = web.head(response, MANIFEST_BYTES)
        except requests.RequestException as error:
            raise self._unreachable(error) from error
        try:
            made_by = json.loads(body).get("annotations", {}).get(INTENT, "")  # without: of KAITO's
        except (ValueError, AttributeError):
            return ""
        found = response.status_code == requests.codes.ok and made_by == intent
        return f"sha256:{hashlib.sha256(body).hexdigest()}" if found else ""

    def _call(self, method: str, path: str, **more: Any) -> requests.Response:
        """The answer, after whatever authentication the registry asks for."""
        response = self._send(method, self.base + path, self._authorization, **more)
        if response.status_code == requests.codes.unauthorized:
            self._authenticate(response.headers.get("WWW-Authenticate", ""))
            response = self._send(method, self.base + path, self._authorization, **more)
        return response

    def _send(self, method: str, url: str, authorization: str, **more: Any) -> requests.Response:
        """One request; answers that another try may change are raised."""
        headers = more.pop("headers", {}) | ({"Authorization": authorization} if authorization else {})
        timeout = (web.CONNECT_SECONDS, READ_SECONDS)
        try:
            response = self._session.request(
                method, url, headers=headers, timeout=timeout, allow_redirects=False, **more
            )
        except requests.ConnectionError as error:
            if self._speaks_tls(error):
                raise self._unreachable(error) from error
            self.base = f"http://{self.reference.api}"
            return self._send(method, url.replace("https:", "http:", 1), authorization, headers=headers, **more)
        except (requests.RequestException, addresses.AddressRefused, addresses.HostUnknown) as error:
            raise self._unreachable(error) from error
        if response.status_code == requests.codes.too_many_requests or response.status_code >= 500:
            raise RegistryUnavailable(f"{IMAGE}: registry {self.reference.host} answers {_said(response)}")
        return response

    def _authenticate(self, challenge: str) -> None:
        kind, _, rest = challenge.partition(" ")
        fields = dict(re.findall(r'(\w+)="([^"]*)"', rest))
        if kind.lower() == "basic":
            if not self.credential:
                raise self._no_entry()
            self._authorization = self.credential.basic()
        elif kind.lower() == "bearer" and fields.get("realm"):
            self._authorization = f"Bearer {self._token(fields)}"
        else:
            raise PushForbidden(
                f"{IMAGE}: registry {self.reference.host} asks for unknown authentication {challenge!r}"
            )

    def _token(self, fields: Mapping[str, str]) -> str:
        """A token for pushing, from the registry's token server."""
        realm = fields["realm"]
        if self.credential and not docker.same_owner(realm, self.base):
            raise PushForbidden(
                f"{IMAGE}: registry {self.reference.host} wants the password sent to {realm!r}, not its own host; "
                "use a registry whose tokens come from its own domain"
            )
        scope = f"repository:{self.reference.repository}:pull,push"
        asked = {"service": fields.get("service", ""), "scope": scope}
        if (
            self.credential.identity_token
        ):  # an OAuth2 refresh token, which `az acr login` leaves in place of a password
            form = {"grant_type": "refresh_token", "refresh_token": self.credential.identity_token}
            response = self._send("POST", realm, "", data=form | asked | {"client_id": "kaito-hera"})
        else:
            basic = self.credential.basic() if self.credential else ""
            response = self._send("GET", realm, basic, params=asked)
        if response.status_code != requests.codes.ok:
            raise self._wrong_password(response)
        try:
            answer = response.json()
            return str(answer.get("access_token") or answer["token"])
        except (ValueError, KeyError, AttributeError) as error:
            raise RegistryUnavailable(f"{IMAGE}: the token server of {self.reference.host} sent no token") from error

    def _refusal(self, response: requests.Response) -> Exception:
        status = response.status_code
        if status == requests.codes.unauthorized and not self.credential:
            return self._no_entry()
        if status == requests.codes.unauthorized and self._authorization.startswith("Basic"):
            return self._wrong_password(response)
        who = self.credential.username or "the secret's account" if self.credential else "anybody"
        return PushForbidden(
            f"{IMAGE}: registry {self.reference.host} does not let {who} push to {self.reference.repository}: "
            f"{_said(response)}; grant the right to push (on ACR: AcrPush), free its quota or correct the name"
        )

    def _wrong_password(self, response: requests.Response) -> PushUnauthorized:
        who = f"user {self.credential.username!r}" if self.credential.username else "the token"
        return PushUnauthorized(
            f"{SECRET}: registry {self.reference.host} does not accept {who} and its password ({_said(response)}); "
            "make the secret anew with a password that is valid now"
        )

    def _no_entry(self) -> PushUnauthorized:
        hosts = ", ".join(credentials.hosts(self._secret)) or "none"
        return PushUnauthorized(
            f"{SECRET}: registry {self.reference.host} asks for a password, but the secret has no entry for it "
            f"(entries: {hosts}); add one for {self.reference.host}"
        )

    def _speaks_tls(self, error: requests.ConnectionError) -> bool:
        """False where plain HTTP may be tried instead: on this machine, unless a certificate was seen."""
        return (
            self.base.startswith("http:")
            or not docker.is_this_machine(self.reference.host)
            or "CERTIFICATE_VERIFY_FAILED" in str(error)
        )

    def _unreachable(self, error: Exception) -> Exception:
        where = f"{IMAGE}: registry {self.reference.host}"
        if isinstance(error, addresses.AddressRefused):
            return PushForbidden(f"{where}: {error}")
        if isinstance(error, requests.exceptions.SSLError):
            return PushForbidden(
                f"{where}: its certificate is not trusted ({web.cause(error)}); "
                "give the operator a CA bundle that has its issuer"
            )
        why = web.cause(error) if isinstance(error, requests.RequestException) else error
        return RegistryUnavailable(f"{where} does not answer ({why}); check its name and whether it runs")


def _said(response: requests.Response) -> str:
    """Status and, where the body is the API's own kind of error, its text: other bodies may be anything."""
    try:
        first = response.json()["errors"][0]
        return f"{response.status_code} {first['code']}: {first.get('message', '')}"[:300]
    except (ValueError, KeyError, IndexError, TypeError):
        return f"{response.status_code} {response.reason}"
