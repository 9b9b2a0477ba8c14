"""Several docker Secrets in one: which entry is for which image, where two have one for the same registry. Pure."""

from collections.abc import Iterable
from typing import Any

from kaito_hera.api import Workspace

Entries = dict[str, Any]
"""A docker config's `auths`: registry, or registry and repository, and what to say there."""


def merged(given: Iterable[tuple[str, Entries]]) -> Entries:
    """All entries of all Secrets, each given with the image that it was named for (or empty).

    Where they differ about a registry, each is kept for its own image's repository too, and there the first counts; for
    the rest of that registry the last does.
    """
    secrets = list(given)
    auths: Entries = {}
    for _, entries in secrets:
        auths |= entries
    for image, entries in secrets:
        host, repository = _place(image)
        for key, entry in entries.items():
            if repository and _plain(key) == host and entry != auths[key]:
                auths.setdefault(f"{host}/{repository}", entry)
    return auths


def image_of(workspace: Workspace, field: str) -> str:
    """The image that the Secrets of a field are for; empty where the field says nothing of one."""
    tuning = workspace.tuning
    places = {f"inference.adapters[{at}].": a.source.image for at, a in enumerate(workspace.adapters)}
    if tuning:
        places |= {"tuning.input.": tuning.input.image, "tuning.output.": tuning.output.image}
    if workspace.preset:
        places |= dict.fromkeys(("tuning.preset.", "inference.preset."), workspace.preset.options.image)
    return next((image or "" for place, image in places.items() if field.startswith(place)), "")


def _place(image: str) -> tuple[str, str]:
    """Registry and repository of an image, as docker reads it."""
    name = image.partition("@")[0]
    head, slash, tail = name.rpartition("/")
    name = head + slash + tail.partition(":")[0]
    host, _, rest = name.partition("/")
    if rest and ("." in host or ":" in host or host == "localhost"):
        return host, rest
    return "docker.io", (name if rest or not name else f"library/{name}")


def _plain(key: str) -> str:
    """The registry that an entry is for."""
    host = key.removeprefix("https://").removeprefix("http://").partition("/")[0]
    return "docker.io" if host in {"index.docker.io", "registry-1.docker.io"} else host
