"""The container images of the cluster's own parts: one static program each, written as OCI archives without a builder.

They carry the names of the published images that they stand in for, so that Argo's manifests hold as they are. The same
inputs give the same bytes. `localhost/busybox` is for tests that need a shell.
"""

import hashlib
import io
import json
import platform
import shutil
import subprocess
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

from tests.cluster import build

PAUSE = "localhost/pause:1"
BUSYBOX = "localhost/busybox:1"
_ARGO_USER = "8737"  # as in the published images


@dataclass(frozen=True)
class Image:
    """An image with one program: /bin/NAME, and other names for it."""

    name: str
    program: Path
    entrypoint: list[str]
    user: str = "0"
    aliases: list[str] = field(default_factory=list)


def system() -> list[Image]:
    """What every node has before it pulls anything."""
    busybox = Path(shutil.which("busybox") or "/bin/busybox")
    applets = subprocess.run([str(busybox), "--list"], capture_output=True, text=True, check=True).stdout.split()
    argo = {"workflow-controller": "workflow-controller", "argocli": "argo", "argoexec": "argoexec"}
    return [
        Image(PAUSE, busybox, ["/bin/busybox", "sleep", "infinity"], user="65535"),
        Image(BUSYBOX, busybox, [], aliases=[applet for applet in applets if applet != "busybox"]),
        *(
            Image(f"quay.io/argoproj/{name}:{release()}", build.binary(program), [program], user=_ARGO_USER)
            for name, program in argo.items()
        ),
    ]


def release() -> str:
    """The tag of the stand-ins for Argo's images."""
    return build.version("argo", "github.com/argoproj/argo-workflows/v4")


def key(images: list[Image]) -> str:
    """Changes when any of the archives would."""
    parts = [(image.name, str(image.program), image.program.stat().st_size, image.aliases) for image in images]
    return hashlib.sha256(f"{parts}{Path(__file__).read_text()}".encode()).hexdigest()[:12]


def write(folder: Path) -> list[Path]:
    """Archives of all system images in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, image in enumerate(system()):
        path = folder / f"{number}.tar"
        archive(image, path)
        paths.append(path)
    return paths


def archive(image: Image, path: Path) -> None:
    """Write an OCI archive that `ctr images import` takes."""
    layer = _layer(image)
    config = _json(
        {
            "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()],
            "os": "linux",
            "config": {
                "User": image.user,
                "Env": ["PATH=/bin", "HOME=/tmp"],
                "Entrypoint": image.entrypoint,
                "Cmd": None if image.entrypoint else ["sh"],
                "WorkingDir": "/",
            },
            "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
        }
    )
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": _descriptor("application/vnd.oci.image.config.v1+json", config),
            "layers": [_descriptor("application/vnd.oci.image.layer.v1.tar", layer)],
        }
    )
    entry = _descriptor("application/vnd.oci.image.manifest.v1+json", manifest)
    index = _json(
        {"schemaVersion": 2, "manifests": [entry | {"annotations": {"io.containerd.image.name": image.name}}]}
    )
    with tarfile.open(path, "w") as tar:
        _add(tar, "oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
        _add(tar, "index.json", index)
        for blob in (layer, config, manifest):
            _add(tar, f"blobs/{_digest(blob).replace(':', '/')}", blob)


def _layer(image: Image) -> bytes:
    content = io.BytesIO()
    name = "busybox" if image.aliases or image.name == PAUSE else image.entrypoint[0]
    with tarfile.open(fileobj=content, mode="w") as tar:
        for folder, mode in (("bin", 0o755), ("etc", 0o755), ("tmp", 0o1777)):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            tar.addfile(entry)
        _add(tar, "etc/passwd", b"root:x:0:0::/:/bin/sh\nargo:x:8737:8737::/tmp:/bin/sh\n")
        _add(tar, "etc/group", b"root:x:0:\nargo:x:8737:\n")
        _add(tar, f"bin/{name}", image.program.read_bytes(), mode=0o755)
        for alias in image.aliases:
            entry = tarfile.TarInfo(f"bin/{alias}")
            entry.type, entry.linkname = tarfile.SYMTYPE, name
            tar.addfile(entry)
    return content.getvalue()


def _add(tar: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    tar.addfile(entry, io.BytesIO(content))


def _descriptor(media_type: str, content: bytes) -> dict[str, object]:
    return {"mediaType": media_type, "digest": _digest(content), "size": len(content)}


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _json(content: object) -> bytes:
    return json.dumps(content, indent=1).encode()
