"""What an image is: what a registry says of one, read with suspicion; what is said of those that are made here.

How a registry is asked is told by who asks: `registry` asks itself, `skopeo` through mirrors.
"""

import hashlib
import json
import platform
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from artifacts import errors, strangers

TYPE = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
CONFIG_TYPES = frozenset({CONFIG, "application/vnd.docker.container.image.v1+json"})
MOST_LAYERS = 1000
_MOST_BYTES = 1 << 60
"""Of a layer: a number that has no measure cannot even be told."""
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_TITLE = "org.opencontainers.image.title"

Ask = Callable[[str], bytes]
"""The manifest of a digest; of the image as it was named, where that is empty."""


class Layer(NamedTuple):
    """One layer as the manifest lists it."""

    digest: str
    size: int
    annotations: Mapping[str, Any] = {}
    title: str = ""
    """The file that it is, where it is no archive."""


class Manifest(NamedTuple):
    """An image whose layers are known."""

    digest: str
    """Of the manifest, `sha256:...`."""
    layers: tuple[Layer, ...]
    config: str
    """Media type of its config, which tells images from other things that registries keep."""

    @property
    def bytes(self) -> int:
        """Of all layers, as they are stored."""
        return sum(layer.size for layer in self.layers)


class Made(NamedTuple):
    """An image that is made here: its two documents."""

    config: bytes
    manifest: bytes


def read(what: str, ask: Ask) -> Manifest:
    """Ask for the manifest of the image that messages call `what`."""
    body = ask("")
    found = parsed(what, body)
    try:
        if "manifests" in found:
            chosen = _chosen(what, found["manifests"])
            body = ask(chosen)
            found = parsed(what, body)
            if digest(body) != chosen:
                raise errors.Away(f"{what}: the registry sent another manifest than {chosen}")
        layers = tuple(_layer(what, entry) for entry in found["layers"])
        config = str((found.get("config") or {}).get("mediaType") or "of no known kind")
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise errors.Unusable(f"{what} has a manifest without readable layers") from error
    if not 0 < len(layers) <= MOST_LAYERS:
        raise errors.Unusable(f"{what} has {len(layers)} layers; an image has 1 to {MOST_LAYERS}")
    return Manifest(digest(body), layers, config)


def parsed(what: str, body: bytes) -> dict[str, Any]:
    """A JSON object of an image."""
    try:
        found = strangers.parsed(body)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise errors.Unusable(f"{what} has a manifest or a config.json that is no JSON object")
    return found


def is_digest(text: str) -> bool:
    """Whether this is a sha256 digest: what is joined to a path must be nothing else."""
    return re.fullmatch(r"sha256:[0-9a-f]{64}", text) is not None


def _chosen(what: str, listed: object) -> str:
    """The digest of the image for this machine, or of the first: files are the same on any."""
    machine = platform.machine()
    wanted = {"os": "linux", "architecture": _ARCHITECTURES.get(machine, machine)}
    entries = [entry for entry in (listed if isinstance(listed, list) else []) if isinstance(entry, dict)]
    real = [(_platform(entry), str(entry["digest"])) for entry in entries if is_digest(str(entry.get("digest")))]
    for said, found in sorted(real, key=lambda each: -sum(each[0].get(key) == wanted[key] for key in wanted)):
        if "unknown" not in (said.get("os"), said.get("architecture")):  # of a builder's notes
            return found
    raise errors.Unusable(f"{what} is an index without an image")


def _platform(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    said = entry.get("platform")
    return said if isinstance(said, dict) else {}


def _layer(what: str, entry: Mapping[str, Any]) -> Layer:
    named, size, kind = str(entry["digest"]), int(entry["size"]), str(entry.get("mediaType", ""))
    if not is_digest(named) or not 0 <= size < _MOST_BYTES:
        raise errors.Unusable(f"{what} has a layer without a sha256 digest and a size")
    told = dict(entry.get("annotations") or {})
    is_file = "tar" not in kind and _TITLE in told
    return Layer(named, size, told, str(told[_TITLE]) if is_file else "")


def made(diffs: Sequence[str], layers: Sequence[Mapping[str, Any]], annotations: Mapping[str, str], *, by: str) -> Made:
    """An image of these layers, the same bytes whoever makes it and when; `diffs` are the digests of their tars."""
    history = [{"created": "1970-01-01T00:00:00Z", "created_by": by}] * len(diffs)
    rootfs = {"type": "layers", "diff_ids": list(diffs)}
    config = dumped({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": rootfs, "history": history})
    body = {"schemaVersion": 2, "mediaType": TYPE, "config": described(CONFIG, config), "layers": list(layers)}
    return Made(config, dumped(body | {"annotations": dict(annotations)}))


def described(kind: str, content: bytes) -> dict[str, Any]:
    """What refers to a blob."""
    return {"mediaType": kind, "digest": digest(content), "size": len(content)}


def dumped(content: Mapping[str, Any]) -> bytes:
    """As JSON, the same bytes each time."""
    return json.dumps(content, separators=(",", ":"), sort_keys=True).encode()


def digest(content: bytes) -> str:
    """What names these bytes in a registry."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
