"""Adapters on volumes: folders that the pod has mounted, looked at and told apart by what is in them. Knows no engine.

An adapter's digest is what `sha256sum adapter_config.json adapter_model.safetensors chat_template.jinja | sha256sum`
says, without the last where there is none. The tuning image names what it leaves in a volume by the same.
"""

import asyncio
import hashlib
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from serving import errors
from serving.adapters import Pulled
from serving.config import Adapter
from serving.images import REQUIRED, TEMPLATE, Images

SHOWN = 10


class Sources:
    """All places that an adapter may come from."""

    def __init__(self, images: Images) -> None:
        self._images = images

    async def pull(self, adapter: Adapter) -> Pulled:
        """The adapter's files, checked; raises an error of `serving.errors`."""
        if adapter.image:
            return await self._images.pull(adapter.image)
        return await asyncio.to_thread(read, adapter)

    def keep_only(self, digests: Iterable[str]) -> None:
        """Give back the disk of images that are no longer listed; a volume is the user's own."""
        self._images.keep_only(digests)


def read(adapter: Adapter) -> Pulled:
    """The adapter at the mounted volume's top; raises an error of `serving.errors`."""
    folder = Path(adapter.folder)
    wanted = dict(REQUIRED)
    try:
        there = sorted(path.name for path in folder.iterdir())
        if missing := [name for name in REQUIRED if name not in there]:
            raise errors.AdapterFilesMissing(
                f"{adapter.volume} has no {' and no '.join(missing)} at its top, it has {_listed(there)}; "
                "put the adapter's files there"
            )
        wanted |= {name: most for name, most in TEMPLATE.items() if name in there}
        sums = "".join(f"{_sum(folder, name, most, adapter.volume)}  {name}\n" for name, most in wanted.items())
    except FileNotFoundError as error:
        if folder.is_dir():  # a link that leads nowhere, or somebody is at work
            raise errors.AdapterFilesMissing(f"{adapter.volume} has no file behind {error.filename}") from error
        raise errors.VolumeNotMounted(f"{adapter.volume} is not mounted at {folder} (yet)") from error
    except PermissionError as error:
        raise errors.AdapterFilesMissing(
            f"{adapter.volume}: user {os.getuid()} may not read {error.filename}; "
            "make files and folders readable for all, or for group 65532"
        ) from error
    except OSError as error:
        raise errors.NodeTrouble(f"{adapter.volume} cannot be read: {error.strerror} at {error.filename}") from error
    digest = f"sha256:{hashlib.sha256(sums.encode()).hexdigest()}"
    expected = adapter.volume.partition("@")[2]
    if expected not in ("", digest):
        raise errors.NotAnAdapter(
            f"{adapter.volume} now holds another adapter, {digest}: something else wrote into this volume; "
            "give each Workspace a volume of its own, and tune again"
        )
    return Pulled(digest, folder)


def _sum(folder: Path, name: str, most: int, volume: str) -> str:
    """The file's sha256. A link may lead about within the volume, as in one made of a ConfigMap, and nowhere else."""
    path = Path(os.path.realpath(folder / name))  # which bears links that lead round
    about = path.stat()
    if not path.is_relative_to(folder.resolve()) or not stat.S_ISREG(about.st_mode):
        raise errors.NotAnAdapter(f"{name} in {volume} is not a regular file of the volume's")
    if about.st_size > most:
        raise errors.NotAnAdapter(f"{name} in {volume} has {about.st_size} bytes; {most} are allowed")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _listed(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "") or "nothing"
