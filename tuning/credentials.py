"""Image references, and the push secret's entry for one of them, read as docker reads them. Talks to nobody."""

import base64
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tuning.errors import ConfigInvalid, PushUnauthorized

SECRET = "tuning.output.imagePushSecret"  # noqa: S105 -- the field, not a secret
IMAGE = "tuning.output.image"

_NAME = re.compile(r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*")
_TAG = re.compile(r"\w[\w.-]{0,127}", re.ASCII)


class Reference(NamedTuple):
    """Where an image goes: `host/repository:tag`."""

    host: str
    repository: str
    tag: str

    def __str__(self) -> str:
        return f"{self.host}/{self.repository}:{self.tag}"

    @property
    def name(self) -> str:
        """Without the tag, as digests are appended to it."""
        return f"{self.host}/{self.repository}"

    @property
    def api(self) -> str:
        """The host that speaks the API."""
        return "registry-1.docker.io" if self.host == "docker.io" else self.host


def parse(image: str) -> Reference:
    """The parts of an image reference, read as docker does."""
    name, _, tag = image.rpartition(":") if ":" in image.rsplit("/", maxsplit=1)[-1] else (image, "", "latest")
    head, _, rest = name.partition("/")
    if rest and ("." in head or ":" in head or head == "localhost"):
        host, repository = head, rest
    else:
        host, repository = "docker.io", name if rest else f"library/{name}"
    host = "docker.io" if host in {"index.docker.io", "registry-1.docker.io"} else host
    if "@" in image or not _NAME.fullmatch(repository) or not _TAG.fullmatch(tag):
        raise ConfigInvalid(f"{IMAGE}: {image!r} is no image reference; write host/repository:tag, in lower case")
    return Reference(host, repository, tag)


class Credential(NamedTuple):
    """What the push secret has for one registry."""

    username: str = ""
    password: str = ""
    identity_token: str = ""

    def __bool__(self) -> bool:
        return bool(self.password or self.identity_token)

    def basic(self) -> str:
        """The Authorization header with the password."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


def find(secret: Path, reference: Reference) -> Credential:
    """The secret's entry for the image, the most specific one; an empty credential when there is none."""
    best: tuple[int, Credential] = (-1, Credential())
    for key, entry in entries(secret).items():
        host, _, path = _plain(key).partition("/")
        host = "docker.io" if host in {"index.docker.io", "registry-1.docker.io"} else host
        if host != reference.host or not (reference.repository + "/").startswith(path + "/" if path else ""):
            continue
        best = max(best, (len(path), _decode(key, entry)), key=lambda found: found[0])
    return best[1]


def hosts(secret: Path) -> list[str]:
    """What the secret has entries for."""
    return sorted(map(_plain, entries(secret)))


def entries(secret: Path) -> Mapping[str, Any]:
    """The secret's `auths`; empty when there is no secret."""
    try:
        found = json.loads(secret.read_text())["auths"]
        if all(isinstance(entry, dict) for entry in found.values()):
            return dict(found)
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    raise PushUnauthorized(f"{SECRET}: its .dockerconfigjson is no JSON object with auths; make the secret anew")


def _plain(key: str) -> str:
    """`https://host/v2/` and `host` are the same registry; a path that is no API version is part of a repository."""
    return re.sub(r"/v[12]$", "", re.sub(r"^https?://", "", key).rstrip("/"))


def _decode(key: str, entry: Mapping[str, Any]) -> Credential:
    username, password = entry.get("username") or "", entry.get("password") or ""
    if entry.get("auth"):
        try:
            username, _, password = base64.b64decode(entry["auth"], validate=True).decode().partition(":")
        except ValueError as error:
            raise PushUnauthorized(
                f"{SECRET}: the entry for {key} has an auth that is not base64; make it anew"
            ) from error
    # `az acr login` writes a zero password beside the token
    return Credential(username, password.strip("\0\n"), entry.get("identitytoken") or "")


def write(path: Path, host: str, found: Credential) -> None:
    """The one credential as a file that skopeo reads: what else the secret holds is not its business."""
    entry = {"auth": found.basic().removeprefix("Basic ")} if found else {}
    if found.identity_token:
        entry["identitytoken"] = found.identity_token
    path.touch(mode=0o600)
    path.write_text(json.dumps({"auths": {host: entry} if entry else {}}))
