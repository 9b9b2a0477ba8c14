"""The image that an adapter goes to, and the push secret's entry for it: refused in the words of those two fields."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from artifacts import docker, strangers
from artifacts.docker import Credential, Reference
from tuning.errors import ConfigInvalid, PushUnauthorized

SECRET = "tuning.output.imagePushSecret"  # noqa: S105 -- the field, not a secret
IMAGE = "tuning.output.image"


def parse(image: str) -> Reference:
    """The parts of an image reference with a tag: what a digest names is there already."""
    try:
        if "@" not in image:
            return docker.parse(image)
    except ValueError as error:
        raise ConfigInvalid(f"{IMAGE}: {error}") from error
    raise ConfigInvalid(f"{IMAGE}: {image!r} is no image reference; write host/repository:tag, in lower case")


def find(secret: Path, reference: Reference) -> Credential:
    """The secret's entry for the image, the most specific one; an empty credential when there is none."""
    return docker.best(entries(secret), reference, _decode)


def hosts(secret: Path) -> list[str]:
    """What the secret has entries for."""
    return sorted(map(docker.plain, entries(secret)))


def entries(secret: Path) -> Mapping[str, Any]:
    """The secret's `auths`; empty when there is no secret."""
    try:
        found = strangers.parsed(strangers.content(secret))["auths"]
        if all(isinstance(entry, dict) for entry in found.values()):
            return dict(found)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise PushUnauthorized(f"{SECRET}: {secret} cannot be read: {error.strerror}; mend it") from error
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    raise PushUnauthorized(f"{SECRET}: its .dockerconfigjson is no JSON object with auths; make the secret anew")


def _decode(key: str, entry: Mapping[str, Any]) -> Credential:
    try:
        return docker.decode(entry)
    except ValueError as error:
        raise PushUnauthorized(f"{SECRET}: the entry for {key} has an auth that is not base64; make it anew") from error
