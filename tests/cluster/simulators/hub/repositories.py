"""The repositories below a content folder, with everything about their files that a client may ask for.

Read once at the start: the content does not change under a running hub. It knows no HTTP.
"""

import hashlib
from pathlib import Path
from typing import NamedTuple

LARGE = {".safetensors", ".parquet", ".bin", ".model"}
"""What the original keeps outside git (LFS), and so answers with X-Linked-* and a sha256 as ETag."""


class File(NamedTuple):
    """One file; `oid` is git's name for the blob."""

    path: str
    location: Path
    size: int
    oid: str
    sha256: str

    @property
    def large(self) -> bool:
        return self.location.suffix in LARGE

    @property
    def etag(self) -> str:
        return f'"{self.sha256 if self.large else self.oid}"'


class Repository(NamedTuple):
    """A model or data set; `kind` is `models` or `datasets`, as the paths of the API have it."""

    kind: str
    id: str
    commit: str
    files: dict[str, File]

    def folders(self) -> set[str]:
        return {str(parent) for path in self.files for parent in Path(path).parents if str(parent) != "."}


def load(content: Path) -> dict[tuple[str, str], Repository]:
    """All repositories, by kind and id."""
    found = {}
    for kind in ("models", "datasets"):
        for folder in sorted((content / kind).glob("*/*")):
            repository = _read(kind, folder)
            found[kind, repository.id] = repository
    if not found:
        raise SystemExit(f"{content} has no models/OWNER/NAME and no datasets/OWNER/NAME: build the content first")
    return found


def _read(kind: str, folder: Path) -> Repository:
    files = {}
    for location in sorted(path for path in folder.rglob("*") if path.is_file()):
        data, path = location.read_bytes(), str(location.relative_to(folder))
        oid = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        files[path] = File(path, location, len(data), oid, hashlib.sha256(data).hexdigest())
    identity = f"{folder.parent.name}/{folder.name}"
    commit = hashlib.sha1("\n".join(f"{file.sha256} {path}" for path, file in files.items()).encode()).hexdigest()
    return Repository(kind, identity, commit, files)
