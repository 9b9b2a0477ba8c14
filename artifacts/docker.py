"""Image references, and the passwords of registries, read as docker and podman read them. Talks to no registry."""

import base64
import ipaddress
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from artifacts import strangers

_NAME = re.compile(r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*")
_TAG = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_HUB = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})
_HELPER_SECONDS = 30


class Reference(NamedTuple):
    """`host/repository:tag` or `host/repository@digest`."""

    host: str
    repository: str
    version: str
    """Tag or digest."""

    def __str__(self) -> str:
        return f"{self.name}{'@' if ':' in self.version else ':'}{self.version}"

    @property
    def name(self) -> str:
        """Without tag and digest."""
        return f"{self.host}/{self.repository}"

    @property
    def api(self) -> str:
        """The host that speaks the API."""
        return "registry-1.docker.io" if self.host == "docker.io" else self.host


class Credential(NamedTuple):
    """What there is for one registry."""

    username: str = ""
    password: str = ""
    identity_token: str = ""

    def __bool__(self) -> bool:
        return bool(self.password or self.identity_token)

    def basic(self) -> str:
        """The Authorization header with the password."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


def parse(image: str) -> Reference:
    """The parts of an image reference; raises ValueError. A digest beside a tag decides."""
    rest, _, digest = image.partition("@")
    name, _, tag = rest.rpartition(":") if ":" in rest.rsplit("/", maxsplit=1)[-1] else (rest, "", "latest")
    head, _, path = name.partition("/")
    if path and ("." in head or ":" in head or head == "localhost"):
        host, repository = head, path
    else:
        host, repository = "docker.io", name if path else f"library/{name}"
    if not _NAME.fullmatch(repository) or not _TAG.fullmatch(tag) or (digest and not _DIGEST.fullmatch(digest)):
        raise ValueError(f"{image!r} is no image reference; write host/repository:tag, in lower case")
    return Reference("docker.io" if host in _HUB else host, repository, digest or tag)


def find(file: Path | None, reference: Reference) -> Credential:
    """The file's entry for the image, the most specific one; None is where docker and podman keep theirs."""
    for path in [file] if file else _places():
        settings = _read(path)
        if found := _entry(settings, reference) or _helped(settings, reference):
            return found
    return Credential()


def own_file() -> Path:
    """Where docker keeps a person's passwords; it may be missing."""
    return Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker") / "config.json"


def _places() -> Iterator[Path]:
    if named := os.environ.get("REGISTRY_AUTH_FILE"):
        yield Path(named)
    yield own_file()
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        yield Path(runtime) / "containers/auth.json"


def _read(file: Path) -> dict[str, Any]:
    try:
        found = strangers.parsed(strangers.content(file))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def best(
    auths: Mapping[str, Mapping[str, Any]], reference: Reference, decode: Callable[[str, Mapping[str, Any]], Credential]
) -> Credential:
    """The most specific of the entries for an image, each decoded from its key and content; an empty one if none is."""
    found: tuple[int, Credential] = (-1, Credential())
    for key, entry in auths.items():
        host, _, path = plain(key).partition("/")
        same = ("docker.io" if host in _HUB else host) == reference.host
        if same and f"{reference.repository}/".startswith(f"{path}/" if path else ""):
            found = max(found, (len(path), decode(key, entry)), key=lambda each: each[0])
    return found[1]


def plain(key: str) -> str:
    """`https://host/v2/` and `host` are the same registry; a path that is no API version is part of a repository."""
    return re.sub(r"/v[12]$", "", re.sub(r"^https?://", "", key).rstrip("/"))


def decode(entry: Mapping[str, Any]) -> Credential:
    """What one entry of `auths` says; raises ValueError where its auth is not base64."""
    username, password = str(entry.get("username") or ""), str(entry.get("password") or "")
    if entry.get("auth"):
        username, _, password = base64.b64decode(str(entry["auth"]), validate=True).decode().partition(":")
    # `az acr login` writes a zero password beside the token
    return Credential(username, password.strip("\0\n"), str(entry.get("identitytoken") or ""))


def write(file: Path, host: str, found: Credential) -> None:
    """The one credential as a file that skopeo reads: what else a secret holds is not its business."""
    entry = {"auth": found.basic().removeprefix("Basic ")} if found else {}
    if found.identity_token:
        entry["identitytoken"] = found.identity_token
    file.touch(mode=0o600)
    file.write_text(json.dumps({"auths": {host: entry} if entry else {}}))


def same_owner(realm: str, base: str) -> bool:
    """Whether a token server belongs to the registry: the same host, or one of the same domain, and TLS is kept."""
    try:
        ours, theirs = urlsplit(base), urlsplit(realm)
    except ValueError:  # brackets that hold no address
        return False
    if theirs.scheme != "https" and ours.scheme == "https":
        return False
    own, other = ours.hostname or "", theirs.hostname or ""
    if own == other:
        return True
    is_name = any(character.isalpha() for character in own) and ":" not in own
    return is_name and own.count(".") > 1 and own.split(".")[-2:] == other.split(".")[-2:]


def is_this_machine(host: str) -> bool:
    """Whether a registry's host, with or without a port, is this machine: there alone plain HTTP may be spoken."""
    name = urlsplit(f"//{host}").hostname or ""
    try:
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _entry(settings: Mapping[str, Any], reference: Reference) -> Credential:
    auths = settings.get("auths")
    if not isinstance(auths, dict):
        return Credential()
    entries = {key: entry for key, entry in auths.items() if isinstance(entry, dict)}
    return best(entries, reference, _decoded)


def _decoded(key: str, entry: Mapping[str, Any]) -> Credential:
    """A person's own files hold other entries too: one that cannot be read is none."""
    del key
    try:
        return decode(entry)
    except ValueError:
        return Credential()


def _helped(settings: dict[str, Any], reference: Reference) -> Credential:
    """What a credential helper has, as `docker login` leaves it on most laptops."""
    helpers = settings.get("credHelpers")
    own = helpers.get(reference.host) if isinstance(helpers, dict) else None
    program = shutil.which(f"docker-credential-{own or settings.get('credsStore')}")
    if program is None:
        return Credential()
    server = "https://index.docker.io/v1/" if reference.host == "docker.io" else reference.host
    done = subprocess.run(  # noqa: S603 -- the helper that the user's own docker config names
        [program, "get"], input=server, capture_output=True, text=True, timeout=_HELPER_SECONDS, check=False
    )
    try:
        said = json.loads(done.stdout)
        name, secret = str(said["Username"]), str(said["Secret"])
    except (ValueError, KeyError, TypeError):
        return Credential()
    return Credential(identity_token=secret) if name == "<token>" else Credential(name, secret)
