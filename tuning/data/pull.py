"""Data in an image: had with `artifacts`, as files below /data or at its top. Knows no rows."""

import tempfile
from pathlib import Path

from artifacts import skopeo, unpack
from tuning import errors
from tuning.data import fetch
from tuning.data.fetch import MAX_BYTES
from tuning.data.folder import Folder
from tuning.report import log

FIELD = "tuning.input.image"
_WAY_IN = "name a pull secret for this registry in tuning.input.imagePullSecrets"
ASK_SECONDS = 30.0
PULL_SECONDS = 3600.0


def inspect(image: str, auth: Path, *, seconds: float = ASK_SECONDS) -> skopeo.Image:
    """What the registry says of the image."""
    with errors.of_image(FIELD, _WAY_IN):
        return skopeo.inspect(image, authfile=auth, seconds=seconds, limit=MAX_BYTES)


def pull(
    image: skopeo.Image, scratch: Path, auth: Path, *, seconds: float = PULL_SECONDS, limit: int = 2 * MAX_BYTES
) -> Folder:
    """The image's files as a folder below `scratch`; what lies in its /data, or else at its top.

    Raises DataTooLarge where they have more than `limit` bytes.
    """
    target = Path(tempfile.mkdtemp(dir=scratch, prefix="image-"))
    with errors.of_image(FIELD, _WAY_IN), tempfile.TemporaryDirectory(dir=scratch, prefix="blobs-") as blobs:
        skopeo.pull(image, Path(blobs, "dir"), authfile=auth, seconds=seconds)
        odd = unpack.unpack(Path(blobs, "dir"), image.layers, target / "files", _cap, limit=limit)
    if links := [name for name in odd if name.startswith("data/")]:
        log.warning("%s: links and devices are left out: %s", FIELD, ", ".join(links[:20]))
    below = target / "files" / "data"
    return Folder(below if below.is_dir() else target / "files", f"{FIELD} ({image.name})")


def patiently(image: str, scratch: Path, auth: Path, pace: fetch.Pace = fetch.PACE) -> Folder:
    """The same for an image's name, for as long as a registry may be away."""
    return fetch.patiently(lambda: pull(inspect(image, auth), scratch, auth), pace)


def _cap(path: str) -> int | None:
    below, _, rest = path.partition("/")
    return MAX_BYTES if (below == "data" and rest) or not (rest or below.startswith(".")) else None
