"""Asks registries through skopeo: what an image is, and its layers on disk.

As KAITO's puller, it asks without credentials first and then with the mounted ones. Every call is bounded in time; what
skopeo says becomes one of our errors. Mirrors and registries of plain HTTP are said where they are for all such tools:
in `/etc/containers/registries.conf` or the file that CONTAINERS_REGISTRIES_CONF names. Needs no torch and no ray.
"""

import hashlib
import json
import os
import platform
import re
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from artifacts.images import errors

INDEX_TYPES = frozenset(
    {"application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"}
)
CONFIG_TYPES = frozenset({"application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"})
MAX_LAYERS = 127
MAX_BYTES = 16 << 30
"""Of all layers as they are stored, unless who asks says otherwise."""

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}

NOT_FOUND = re.compile(
    r"manifest unknown|name unknown|not found|repository name not known|status code 404", re.IGNORECASE
)
FORBIDDEN = re.compile(
    r"unauthorized|authentication required|denied|forbidden|invalid username/password|status code 40[13]", re.IGNORECASE
)
BAD_NAME = re.compile(r"invalid reference format|must be lowercase|Invalid image name|parsing reference", re.IGNORECASE)

WRAPPING = re.compile(r'^(time="[^"]*" level=\w+ msg=)?"?(.*(docker://\S+|reading manifest \S+ in \S+): )?')
"""What skopeo puts before the reason: the log's head, and the image that our messages name themselves."""


@dataclass(frozen=True)
class Layer:
    """One layer as the manifest lists it."""

    digest: str
    size: int
    media_type: str


@dataclass(frozen=True)
class Manifest:
    """An image that can be unpacked."""

    image: str
    """As it was asked for."""
    digest: str
    """Of the manifest, `sha256:...`."""
    layers: tuple[Layer, ...]

    @property
    def pinned(self) -> str:
        """The image by digest."""
        return f"{_repository(self.image)}@{self.digest}"


def inspect(image: str, *, authfile: Path, seconds: float, limit: int = MAX_BYTES) -> Manifest:
    """Ask the registry for the manifest and see that it is an image whose layers have at most `limit` bytes."""
    ends = time.monotonic() + seconds
    raw = _skopeo(["inspect", "--raw", f"docker://{image}"], image, authfile=authfile, ends=ends)
    manifest = _json(raw, image)
    if str(manifest.get("mediaType")) in INDEX_TYPES or "manifests" in manifest:
        pinned = f"{_repository(image)}@{_choose(manifest, image)}"
        raw = _skopeo(["inspect", "--raw", f"docker://{pinned}"], image, authfile=authfile, ends=ends)
        manifest = _json(raw, image)
    return _checked(image, manifest, "sha256:" + hashlib.sha256(raw).hexdigest(), limit)


def pull(manifest: Manifest, folder: Path, *, authfile: Path, seconds: float) -> None:
    """Copy manifest and layers into `folder`, each blob under the hex of its digest."""
    command = ["copy", "--quiet", f"docker://{manifest.pinned}", f"dir:{folder}"]
    _skopeo(command, manifest.image, authfile=authfile, ends=time.monotonic() + seconds)


def _skopeo(command: list[str], image: str, *, authfile: Path, ends: float) -> bytes:
    """Run skopeo, anonymously first: a public image must not fail for an expired secret."""
    try:
        anonymous = "--src-no-creds" if command[0] == "copy" else "--no-creds"
        return _run([command[0], anonymous, *command[1:]], image, given=False, ends=ends)
    except errors.AccessDenied:
        if not authfile.is_file():
            raise
    return _run([command[0], "--authfile", str(authfile), *command[1:]], image, given=True, ends=ends)


def _run(arguments: list[str], image: str, *, given: bool, ends: float) -> bytes:
    seconds = max(ends - time.monotonic(), 1.0)
    command = ["skopeo", "--insecure-policy", "--command-timeout", f"{seconds:.0f}s", *_registries_conf(), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, check=False, timeout=seconds + 1, env=_environment())  # noqa: S603
    except subprocess.TimeoutExpired as error:
        raise errors.RegistryAway(f"the registry of {image} did not answer within {seconds:.0f} s") from error
    except FileNotFoundError as error:
        raise errors.MachineTrouble("skopeo is not installed in this image") from error
    if done.returncode:
        raise _explain(image, done.stderr.decode(errors="replace"), given=given)
    return done.stdout


def _registries_conf() -> list[str]:
    """Older releases of skopeo have the flag and do not read the variable."""
    file = os.environ.get("CONTAINERS_REGISTRIES_CONF")
    return ["--registries-conf", file] if file else []


def _environment() -> Mapping[str, str]:
    """With a TMPDIR, where skopeo keeps large blobs meanwhile: its own default is not writable in a read-only pod."""
    return {"TMPDIR": "/tmp"} | dict(os.environ)  # noqa: S108


def _explain(image: str, said: str, *, given: bool) -> errors.ImageError:
    """The last words of skopeo as one of our errors; `given` says whether it had credentials."""
    message = WRAPPING.sub("", said.strip().rsplit("\n", 1)[-1]).strip('"').replace('\\"', '"')
    if "no space left" in said:
        return errors.MachineTrouble(f"the disk is full while pulling {image}: {message}")
    if BAD_NAME.search(said):
        return errors.ImageNotFound(f"{image} is not an image reference: {message}")
    if FORBIDDEN.search(said):
        tried = "without credentials and with the given ones" if given else "without credentials and none are given"
        return errors.AccessDenied(f"the registry refuses {image} {tried}: {message}")
    if NOT_FOUND.search(said):
        return errors.ImageNotFound(f"the registry has no image {image}: {message}; push it or correct the name")
    return errors.RegistryAway(f"the registry of {image} does not answer as it should: {message}")


def _json(raw: bytes, image: str) -> dict[str, Any]:
    try:
        manifest = json.loads(raw)
    except ValueError as error:
        raise errors.RegistryAway(f"the registry answers no manifest for {image}: {error}") from error
    if not isinstance(manifest, dict):
        raise errors.ImageUnusable(f"{image} has a manifest that is no JSON object")
    return manifest


def _choose(index: Mapping[str, Any], image: str) -> str:
    """The image of an index for this machine, else the only real one: files are the same on any."""
    architecture = ARCHITECTURES.get(platform.machine(), platform.machine())
    listed = index.get("manifests")
    entries = [entry for entry in (listed if isinstance(listed, list) else []) if isinstance(entry, dict)]
    real = [entry for entry in entries if _platform(entry, "architecture") != "unknown"]
    mine = [entry for entry in real if _platform(entry, "architecture") == architecture]
    for entry in (*mine, *real):
        if re.fullmatch(r"sha256:[0-9a-f]{64}", str(entry.get("digest"))):
            return str(entry["digest"])
    raise errors.ImageUnusable(f"{image} is an index without an image")


def _platform(entry: Mapping[str, Any], key: str) -> str:
    said = entry.get("platform")
    return str(said.get(key, "")) if isinstance(said, dict) else ""


def _checked(image: str, manifest: Mapping[str, Any], digest: str, limit: int) -> Manifest:
    config = manifest.get("config")
    kind = config.get("mediaType") if isinstance(config, dict) else None
    if str(kind) not in CONFIG_TYPES:
        raise errors.ImageUnusable(f"{image} is {kind or 'of no known kind'} and no container image")
    layers = _layers(image, manifest)
    if not 0 < len(layers) <= MAX_LAYERS:
        raise errors.ImageUnusable(f"{image} has {len(layers)} layers; an image has 1 to {MAX_LAYERS}")
    if sum(layer.size for layer in layers) > limit:
        raise errors.ImageUnusable(f"the layers of {image} are larger than {limit >> 30} GiB together")
    if not all(re.fullmatch(r"sha256:[0-9a-f]{64}", layer.digest) and layer.size >= 0 for layer in layers):
        raise errors.ImageUnusable(f"{image} has a layer without a sha256 digest")
    if any(layer.media_type.endswith("zstd") for layer in layers):
        raise errors.ImageUnusable(f"{image} has layers compressed with zstd; build the image with gzip layers")
    return Manifest(image, digest, layers)


def _layers(image: str, manifest: Mapping[str, Any]) -> tuple[Layer, ...]:
    try:
        return tuple(
            Layer(str(layer["digest"]), int(layer["size"]), str(layer.get("mediaType", "")))
            for layer in manifest["layers"]
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise errors.ImageUnusable(f"{image} has a manifest without readable layers") from error


def _repository(image: str) -> str:
    """The reference without tag and digest; a port is no tag."""
    name = image.partition("@")[0]
    head, slash, tail = name.rpartition("/")
    return head + slash + tail.partition(":")[0]
