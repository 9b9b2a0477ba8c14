"""A model's files out of an image's layers, from hands that nobody vouches for.

Members are read as a stream, and only files that a model needs, in one of a few folders, are ever written, as new
regular files: no link, device or path of the archive reaches the file system. What is unpacked may not be much larger
than what was stored. Whiteouts of later layers remove what earlier ones had. Knows files and tar, no registry.
"""

import contextlib
import gzip
import io
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from artifacts.images import tar
from artifacts.weights import config, errors

PLACES = ("models", "model", "weights", "workspace/tfs/weights", "workspace/weights", "data", "")
"""Folders of an image that may hold the files: ours and KServe's, KAITO's of its eras, the top."""

_SMALL = 256 << 20
"""The most bytes of a file that holds no weights: the largest tokenizers have some 40 MB."""
_GROWTH = 4
SLACK = 1 << 30
"""Weights hardly compress: layers that unpack to more than four times their size and a GiB are not a model's."""
_OTHER = (".bin", ".pth", ".pt", ".gguf", ".onnx", ".msgpack", ".h5")
"""Weights in formats that are not loaded, to be named where there are no others."""


class Files:
    """What has been unpacked so far, place by place, below a folder of one image's own."""

    def __init__(self, folder: Path, what: str, *, slack: int = SLACK) -> None:
        self._folder = folder
        self._what = what
        self._slack = slack
        self.others: set[str] = set()
        """Weights in other formats that were seen."""

    def add(self, blob: Path, *, title: str = "") -> None:
        """Unpack one layer over what there is; `title` names the file of a layer that is no archive."""
        part = self._folder / ".layer"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        if title:
            self._add_file(blob, PurePosixPath(title), part)
        else:
            self._add_archive(blob, part)
        for file in sorted(path for path in part.rglob("*") if path.is_file()):
            target = self._folder / file.relative_to(part)
            target.parent.mkdir(parents=True, exist_ok=True)
            file.replace(target)
        shutil.rmtree(part)

    def model(self) -> Path:
        """The folder that has a model's files; raises ModelUnusable with what is there instead."""
        for place in PLACES:
            folder = self._folder / _flat(place)
            if (folder / "config.json").is_file() and any(folder.glob("*.safetensors")):
                return folder
        where = ", ".join(f"/{place}" for place in PLACES)
        seen = f"; it has weights in other formats, which are not loaded: {', '.join(sorted(self.others)[:3])}"
        raise errors.ModelUnusable(
            f"{self._what}: has no config.json with .safetensors beside it in any of {where}"
            f"{seen if self.others else ''}; make one with `kaito-hera model push`"
        )

    def _add_file(self, blob: Path, title: PurePosixPath, part: Path) -> None:
        place, name = str(title.parent).removeprefix("."), title.name
        if place in PLACES and config.is_wanted(name):
            (part / _flat(place)).mkdir()
            blob.replace(part / _flat(place) / name)

    def _add_archive(self, blob: Path, part: Path) -> None:
        limit = _GROWTH * blob.stat().st_size + self._slack
        with blob.open("rb") as file:
            unpacked = _Counted(self._decompressed(file), limit, self._what)
            try:
                for archive, member in tar.members(unpacked):
                    self._take(archive, member, part)
            except (tarfile.TarError, zlib.error, gzip.BadGzipFile, EOFError, ValueError) as error:
                raise errors.ModelUnusable(
                    f"{self._what}: layer {blob.name} is no readable archive: {error}"
                ) from error

    def _decompressed(self, file: io.BufferedReader) -> io.BufferedIOBase:
        magic = file.peek(4)[:4]
        if magic.startswith(b"\x28\xb5\x2f\xfd"):
            raise errors.ModelUnusable(
                f"{self._what}: its layers are compressed with zstd; build it with plain or gzip ones"
            )
        return gzip.GzipFile(fileobj=file) if magic.startswith(b"\x1f\x8b") else file

    def _take(self, archive: tarfile.TarFile, member: tarfile.TarInfo, part: Path) -> None:
        """Write one member if it is wanted; obey it if it is a whiteout."""
        path = PurePosixPath("/" + member.name)
        if ".." in path.parts:
            raise errors.ModelUnusable(f"{self._what}: has a file named {member.name!r}, which points outside of it")
        place, name = str(path.parent).strip("/"), path.name
        if name.startswith(".wh."):
            self._remove(place, name.removeprefix(".wh."))
        elif place in PLACES and config.is_wanted(name):
            self._write(archive, member, part / _flat(place), name)
        elif place in PLACES and name.endswith(_OTHER):
            self.others.add(f"{place}/{name}")

    def _remove(self, place: str, name: str) -> None:
        """What a whiteout takes away of the layers below: a file, a folder, or (opaque) all that a folder has."""
        gone = place if name == ".wh..opq" else f"{place}/{name}".strip("/")
        for each in PLACES:
            if each == gone or each.startswith(f"{gone}/") or not gone:
                shutil.rmtree(self._folder / _flat(each), ignore_errors=True)
        if place in PLACES:
            with contextlib.suppress(IsADirectoryError, FileNotFoundError):
                (self._folder / _flat(place) / name).unlink()

    def _write(self, archive: tarfile.TarFile, member: tarfile.TarInfo, folder: Path, name: str) -> None:
        if not member.isreg() or member.issparse():  # a sparse one of a few bytes could fill the disk
            raise errors.ModelUnusable(
                f"{self._what}: {member.name} is no regular file; copy files, not links or holes, into it"
            )
        if member.size > _SMALL and not name.endswith(".safetensors"):
            raise errors.ModelUnusable(f"{self._what}: {member.name} has {member.size} bytes; {_SMALL} are allowed")
        content = archive.extractfile(member)
        assert content is not None
        folder.mkdir(exist_ok=True)
        (folder / name).unlink(missing_ok=True)
        with (folder / name).open("xb") as target:  # new, so it cannot be a link that was put there
            shutil.copyfileobj(content, target, 1 << 20)


class _Counted(io.BufferedIOBase):
    """What a blob decompresses to, up to a limit."""

    def __init__(self, source: io.BufferedIOBase, limit: int, what: str) -> None:
        super().__init__()
        self._source = source
        self._left = limit
        self._limit = limit
        self._what = what

    def read(self, size: int | None = -1, /) -> bytes:
        """As of a file."""
        data = self._source.read(1 << 20 if size is None or size < 0 else min(size, 1 << 20))
        self._left -= len(data)
        if self._left < 0:
            raise errors.ModelUnusable(f"{self._what}: a layer unpacks to more than {self._limit} bytes")
        return data


def _flat(place: str) -> str:
    """A place as one folder's name."""
    return "files-" + place.replace("/", "-")


def single_file(name: str, size: int, pieces: Iterator[bytes]) -> Iterator[bytes]:
    """A tar with one file, piece by piece: the same bytes for the same file, whoever makes it and when."""
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o644
    yield member.tobuf(tarfile.GNU_FORMAT)
    yield from pieces
    yield bytes(padding(size))


def padding(size: int) -> int:
    """Zeros after a file of this size: up to a full block, and two more blocks that end the archive."""
    return -size % tarfile.BLOCKSIZE + 2 * tarfile.BLOCKSIZE
