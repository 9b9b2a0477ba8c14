"""Asks and moves images with skopeo: adapters and data, which are small and come through the mirrors of a cluster.

As KAITO's puller, it asks without credentials first and then with the mounted ones. Every call is bounded in time; what
skopeo says becomes one of our errors. Mirrors and registries of plain HTTP are said where they are for all such tools:
in `/etc/containers/registries.conf` or the file that CONTAINERS_REGISTRIES_CONF names. Models come by `registry`
instead, which goes on where it was cut and needs no mirrors. Needs no torch and no ray.
"""

import contextlib
import os
import re
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from artifacts import docker, errors, manifest
from artifacts.manifest import Layer

MAX_BYTES = 16 << 30
"""Of all layers as they are stored, unless who asks says otherwise."""

_LOOK = 0.5
"""Seconds between looks whether a copy is to go on."""

_SEEN = re.compile(r'^(time="[^"]*" level=\w+ msg=)?"?(.*(docker://\S+|reading manifest \S+ in \S+): )?')
"""What skopeo puts before the reason: the log's head, and the image that our messages name themselves."""

_NAMES = re.compile(r"\S*/\S*[^\s:]|manifest \S+ (?=to |in )")
"""The user's words, in which a reason must not be found: a repository may be called quota."""

_STATUS = re.compile(r"(?:HTTP|status)\D{0,25}(\d{3})\b", re.IGNORECASE)
"""skopeo's ways: `HTTP status: 502`, `StatusCode: 403`, `HTTP 413 response body`, `status code from registry 404`."""

_FINAL = frozenset({"401", "403", "404", "413"})
_BAD_NAME = r"invalid reference format|must be lowercase|Invalid image name|parsing reference"
_WORDS: tuple[tuple[type[errors.ArtifactError], str], ...] = (
    (errors.MachineTrouble, "no space left"),
    (errors.NotFound, _BAD_NAME),
    (errors.HostRefused, r"x509: |server gave HTTP response to HTTPS client"),
    (errors.Denied, r'(?:^|: |\\n)(?:denied|(?:name|tag|manifest) invalid|unsupported)(?=[:"\\]|$)|\bquota\b'),
    (errors.Unauthorized, r"unauthorized|authentication required|\binvalid (?=:|$)|forbidden"),
    (errors.NotFound, r"manifest unknown|name unknown|not found|repository name not known"),
)
"""By the codes of the API's errors, and by what stands before a name that was taken out."""


class Image(NamedTuple):
    """An image that can be unpacked."""

    name: str
    """As it was asked for."""
    digest: str
    layers: tuple[Layer, ...]

    @property
    def pinned(self) -> str:
        """The image by digest."""
        return f"{_repository(self.name)}@{self.digest}"


def inspect(image: str, *, authfile: Path, seconds: float, limit: int = MAX_BYTES) -> Image:
    """Ask the registry for the manifest and see that it is an image whose layers have at most `limit` bytes."""
    ends = time.monotonic() + seconds

    def ask(digest: str) -> bytes:
        named = digest or image.partition("@")[2]  # beside a tag, which skopeo refuses then; it decides, as in `docker`
        asked = f"{_repository(image)}@{named}" if named else image
        return _as_anybody(["inspect", "--raw", f"docker://{asked}"], image, authfile=authfile, ends=ends)

    found = manifest.read(image, ask)
    if found.config not in manifest.CONFIG_TYPES:
        raise errors.Unusable(f"{image} is {found.config} and no container image")
    if found.bytes > limit:
        raise errors.TooLarge(f"the layers of {image} are larger than {limit >> 30} GiB together")
    return Image(image, found.digest, found.layers)


def pull(image: Image, folder: Path, *, authfile: Path, seconds: float) -> None:
    """Copy manifest and layers into `folder`, each blob under the hex of its digest."""
    command = ["copy", "--quiet", f"docker://{image.pinned}", f"dir:{folder}"]
    _as_anybody(command, image.name, authfile=authfile, ends=time.monotonic() + seconds)


def push(
    source: str,
    target: docker.Reference,
    credential: docker.Credential,
    *,
    plain: bool,
    scratch: Path,
    seconds: float,
    stop: Callable[[], bool] = lambda: False,
) -> str:
    """Copy an image on the disk to its registry, over HTTP without TLS where `plain`; the digest that it has there.

    Raises `Away` too as soon as `stop` says so.
    """
    auth, digest = scratch / "push-auth.json", scratch / "push-digest"
    docker.write(auth, target.host, credential)
    command = ["--tmpdir", str(scratch), "copy", "--preserve-digests", "--authfile", str(auth)]
    command += ["--digestfile", str(digest), *(["--dest-tls-verify=false"] if plain else []), source]
    try:
        done = _run([*command, f"docker://{target}"], seconds, what=f"{target} took no image", stop=stop)
    finally:
        auth.unlink(missing_ok=True)
    if done.returncode:
        words = done.stderr.decode(errors="replace")
        raise _kind(words)(f"{target} does not take the image: {_last(words)[-400:]}")
    return digest.read_text().strip()


def _as_anybody(command: list[str], image: str, *, authfile: Path, ends: float) -> bytes:
    """Run skopeo, anonymously first: a public image must not fail for an expired secret."""
    try:
        anonymous = "--src-no-creds" if command[0] == "copy" else "--no-creds"
        return _read([command[0], anonymous, *command[1:]], image, given=False, ends=ends)
    except errors.Denied:
        if not authfile.is_file():
            raise
    return _read([command[0], "--authfile", str(authfile), *command[1:]], image, given=True, ends=ends)


def _read(arguments: list[str], image: str, *, given: bool, ends: float) -> bytes:
    seconds = max(ends - time.monotonic(), 1.0)
    command = ["--command-timeout", f"{seconds:.0f}s", *arguments]
    done = _run(command, seconds + 1, what=f"the registry of {image} did not answer")
    if done.returncode:
        raise _explain(image, done.stderr.decode(errors="replace"), given=given)
    return done.stdout


def _run(
    arguments: list[str], seconds: float, *, what: str, stop: Callable[[], bool] = lambda: False
) -> subprocess.CompletedProcess[bytes]:
    command = ["skopeo", "--insecure-policy", *_registries_conf(), *arguments]
    pipe, began = subprocess.PIPE, time.monotonic()
    try:
        process = subprocess.Popen(command, stdout=pipe, stderr=pipe, env=_environment())  # noqa: S603
    except FileNotFoundError as error:
        raise errors.MachineTrouble("skopeo is not installed in this image") from error
    with process:
        try:
            while (left := began + seconds - time.monotonic()) > 0 and not stop():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    told = process.communicate(timeout=min(left, _LOOK))
                    return subprocess.CompletedProcess(command, process.returncode, *told)
        finally:
            process.kill()  # which one that has ended does not mind
    raise errors.Away(f"{what} within {time.monotonic() - began:.0f} s")


def _registries_conf() -> list[str]:
    """Older releases of skopeo have the flag and do not read the variable."""
    file = os.environ.get("CONTAINERS_REGISTRIES_CONF")
    return ["--registries-conf", file] if file else []


def _environment() -> Mapping[str, str]:
    """With a TMPDIR, where skopeo keeps large blobs meanwhile: its own default is not writable in a read-only pod."""
    return {"TMPDIR": "/tmp"} | dict(os.environ)  # noqa: S108


def _explain(image: str, said: str, *, given: bool) -> errors.ArtifactError:
    """The last words of skopeo as one of our errors; `given` says whether it had credentials."""
    kind, why = _kind(said), _SEEN.sub("", _last(said)).strip('"').replace('\\"', '"')
    if kind is errors.MachineTrouble:
        return kind(f"the disk is full while pulling {image}: {why}")
    if kind is errors.HostRefused:
        return kind(f"the registry of {image} {(errors.UNTRUSTED if 'x509' in why else errors.NO_TLS).format(why)}")
    if issubclass(kind, errors.Denied):
        tried = "without credentials and with the given ones" if given else "without credentials and none are given"
        return kind(f"the registry refuses {image} {tried}: {why}")
    if kind is errors.NotFound and re.search(_BAD_NAME, _last(said)):
        return kind(f"{image} is not an image reference: {why}")
    if kind is errors.NotFound:
        return kind(f"the registry has no image {image}: {why}; push it or correct the name")
    return kind(f"the registry of {image} does not answer as it should: {why}")


def _kind(said: str) -> type[errors.ArtifactError]:
    """What skopeo's last words mean.

    Only what the registry itself says is final. A proxy's error page is not, nor is a broken connection, even where
    the registry broke it off to refuse: the next try asks it.
    """
    told = _NAMES.sub("", _last(said))
    if (found := _STATUS.search(told)) and (found[1] in _FINAL or errors.of_status(int(found[1])) is errors.Away):
        return errors.of_status(int(found[1]))
    return next((kind for kind, words in _WORDS if re.search(words, told, re.IGNORECASE)), errors.Away)


def _last(said: str) -> str:
    return said.strip().rsplit("\n", 1)[-1] or "skopeo said nothing"


def _repository(image: str) -> str:
    """The reference without tag and digest; a port is no tag."""
    name = image.partition("@")[0]
    head, slash, tail = name.rpartition("/")
    return head + slash + tail.partition(":")[0]
