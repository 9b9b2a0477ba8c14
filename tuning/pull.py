"""Data in an image: had with `artifacts.images`, as files below /data or at its top. Knows no rows."""

import contextlib
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from artifacts.images import errors as image_errors
from artifacts.images import registry, unpack
from tuning.errors import (
    DataInvalid,
    DataNotFound,
    DataUnreachable,
    NodeTrouble,
    PullUnauthorized,
)
from tuning.fetch import MAX_BYTES, PATIENCE_SECONDS
from tuning.folder import Folder
from tuning.report import log

FIELD = "tuning.input.image"
ASK_SECONDS = 30.0
PULL_SECONDS = 3600.0


def inspect(image: str, auth: Path, *, seconds: float = ASK_SECONDS) -> registry.Manifest:
    """What the registry says of the image."""
    with _explained():
        return registry.inspect(image, authfile=auth, seconds=seconds, limit=MAX_BYTES)


def pull(manifest: registry.Manifest, scratch: Path, auth: Path, *, seconds: float = PULL_SECONDS) -> Folder:
    """The image's files as a folder below `scratch`; what lies in its /data, or else at its top."""
    target = Path(tempfile.mkdtemp(dir=scratch, prefix="image-"))
    with _explained(), tempfile.TemporaryDirectory(dir=scratch, prefix="blobs-") as blobs:
        registry.pull(manifest, Path(blobs, "dir"), authfile=auth, seconds=seconds)
        odd = unpack.unpack(Path(blobs, "dir"), manifest.layers, target / "files", _cap, limit=2 * MAX_BYTES)
    if links := [name for name in odd if name.startswith("data/")]:
        log.warning("%s: links and devices are left out: %s", FIELD, ", ".join(links[:20]))
    below = target / "files" / "data"
    return Folder(below if below.is_dir() else target / "files", f"{FIELD} ({manifest.image})")


def patiently(
    image: str, scratch: Path, auth: Path, *, patience: float = PATIENCE_SECONDS, pause: float = 1.0
) -> Folder:
    """The same for an image's name, for as long as a registry may be away."""
    end = time.monotonic() + patience
    while True:
        try:
            return pull(inspect(image, auth), scratch, auth)
        except DataUnreachable as error:
            if time.monotonic() + pause > end:
                raise
            log.warning("%s; trying again in %.0f s", error, pause)
        time.sleep(pause)
        pause = min(2 * pause, 15)


def _cap(path: str) -> int | None:
    below, _, rest = path.partition("/")
    return MAX_BYTES if (below == "data" and rest) or not (rest or below.startswith(".")) else None


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except image_errors.AccessDenied as error:
        raise PullUnauthorized(
            f"{FIELD}: {error}; name a pull secret for this registry in tuning.input.imagePullSecrets"
        ) from error
    except image_errors.ImageNotFound as error:
        raise DataNotFound(f"{FIELD}: {error}") from error
    except image_errors.ImageUnusable as error:
        raise DataInvalid(f"{FIELD}: {error}") from error
    except image_errors.RegistryAway as error:
        raise DataUnreachable(f"{FIELD}: {error}") from error
    except image_errors.MachineTrouble as error:
        raise NodeTrouble(f"{FIELD}: {error}") from error
