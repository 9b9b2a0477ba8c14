"""The node image: what a node finds on its disk when it boots, as a cloud keeps one.

It is the root folder of a containerd that has unpacked images: the cluster's own and those that were added, kept in the
cache for all clusters. A node does not copy it: each of its unpacked layers is a symbolic link into the node image.
That is safe because overlayfs only reads lower layers, and containerd only ever removes the link; what the node pulls
later is its own. The small databases are real copies.

A node image is never changed: a change makes a new generation (hard links to the old one), and a generation goes when
it is not the current one and no node links into it.
"""

import fcntl
import hashlib
import json
import shutil
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.cluster import containerd, images, layout, machines, progress, registry

_SNAPSHOTS = Path("io.containerd.snapshotter.v1.overlayfs/snapshots")
_DATABASE = Path("io.containerd.metadata.v1.bolt/meta.db")  # containerd holds a lock on it
_CONTENTS = "contents.json"
_USERS = "users"  # a link to every node disk that was cloned from this generation


def ensure(cluster: layout.Cluster) -> None:
    """There is a node image with the cluster's own images in it."""
    wanted = images.key(images.system())
    with layout.lock("node-image"):
        if _contents().get("system") != wanted:
            _renew(cluster, system=wanted, pulls={})


def add(cluster: layout.Cluster, names: list[str]) -> list[str]:
    """Put images from the cluster's registry into the node image; returns those that it lacked in their present form.

    An image replaces others of its repository. Nodes that run keep what they have.
    """
    wanted = {name: registry.manifest_digest(cluster, name) for name in names}
    with layout.lock("node-image"):
        held = _contents().get("pulled", {})
        lacking = {name: digest for name, digest in wanted.items() if held.get(name) != digest}
        if lacking:
            renewed = {_repository(name) for name in names}
            registry.keep(cluster, names, besides=[name for name in held if _repository(name) not in renewed])
            _renew(cluster, system=images.key(images.system()), pulls=lacking)
    return sorted(lacking)


def clone(target: Path) -> None:
    """Give a node its containerd root; a killed clone leaves nothing that counts."""
    if target.exists():
        return
    scratch = target.with_name(f"{target.name}.part")
    layout.remove(scratch)
    with layout.lock("node-image"):
        generation = _current()
        if generation is None:
            raise layout.ClusterError(f"there is no node image in {_folder()}: `make up` makes it")
        _copy_small(generation, scratch)
        for snapshot in (generation / _SNAPSHOTS).iterdir():
            (scratch / _SNAPSHOTS / snapshot.name).symlink_to(snapshot)
        user = generation / _USERS / hashlib.sha256(str(target).encode()).hexdigest()[:16]
        user.parent.mkdir(exist_ok=True)
        user.unlink(missing_ok=True)
        user.symlink_to(target)
        scratch.rename(target)


def collect() -> None:
    """Remove generations that nothing uses any more."""
    with layout.lock("node-image"):
        _collect()


def forget() -> None:
    """Remove the node image; the next `up` makes a new one."""
    with layout.lock("node-image"):
        (_folder() / "current").unlink(missing_ok=True)
        _collect()


def users() -> list[str]:
    """Node disks that were cloned from any generation and still exist, whatever state folder they are in."""
    links = _folder().glob(f"*/{_USERS}/*")
    return sorted({str(link.readlink()) for link in links if link.exists()})


def contents() -> dict[str, str]:
    """The added images and their digests."""
    return dict(_contents().get("pulled", {}))


def _renew(cluster: layout.Cluster, *, system: str, pulls: dict[str, str]) -> None:
    """A new generation, made by a containerd that nothing else talks to."""
    maker = machines.Machine(cluster, "node-image")
    maker.power_off()
    _collect()
    old = _current()
    scratch = _folder() / f"{cluster.unique}.part"
    if old:
        _copy_small(old, scratch)
        _link_tree(old / _SNAPSHOTS, scratch / _SNAPSHOTS)
    try:
        maker.power_on("")
        containerd.start(maker, cluster.state / "node-image", root=scratch)
        if _contents().get("system") != system:
            _import_system(cluster, maker)
        kept = _pull(cluster, maker, pulls)
        maker.stop_daemon("containerd")
    finally:
        maker.power_off()
    layout.replace(scratch / _CONTENTS, json.dumps({"system": system, "pulled": kept | pulls}, indent=1))
    final = _folder() / time.strftime("%Y%m%d-%H%M%S")
    scratch.rename(final)
    link = _folder() / "current.part"
    link.unlink(missing_ok=True)
    link.symlink_to(final.name)
    link.rename(_folder() / "current")
    _collect()


def _pull(cluster: layout.Cluster, maker: machines.Machine, names: Iterable[str]) -> dict[str, str]:
    """Pull images in place of others of their repositories; what else was pulled before, and stays."""
    pulled = contents()
    user, password = registry.credentials(cluster)
    for name in names:
        with progress.part(f"pull {name}", "containerd, which unpacks it once for all nodes"):
            containerd.pull(maker, name, user=user, password=password)
        pulled = _superseded(maker, pulled, name)
    return pulled


def _import_system(cluster: layout.Cluster, maker: machines.Machine) -> None:
    folder = cluster.state / "node-image" / "archives"
    for archive in images.write(folder):
        containerd.ctr(maker, "images", "import", str(archive))
    for image in images.system():
        containerd.drop_archives(maker, containerd.digest(maker, image.name))
    shutil.rmtree(folder)


def _superseded(maker: machines.Machine, pulled: dict[str, str], name: str) -> dict[str, str]:
    """Drop what this image replaces, with the layers that only it used; returns what remains."""
    remains = {one: digest for one, digest in pulled.items() if _repository(one) != _repository(name)}
    needed = {containerd.digest(maker, name), *remains.values()}
    stale = set(pulled.values()) - needed
    for reference, digest in containerd.references(maker).items():
        if digest in stale:
            containerd.ctr(maker, "images", "rm", "--sync", reference)
    return remains


def _repository(name: str) -> str:
    return name.rpartition(":")[0]


def _copy_small(source: Path, target: Path) -> None:
    """Everything but the unpacked layers: databases, manifests, configs."""

    def ignored(folder: str, names: list[str]) -> list[str]:
        if Path(folder) == source:
            return [name for name in names if name in {_CONTENTS, _USERS}]
        return names if Path(folder) == source / _SNAPSHOTS else []

    shutil.copytree(source, target, symlinks=True, ignore=ignored)


def _link_tree(source: Path, target: Path) -> None:
    command = ["cp", "--archive", "--link", f"{source}/.", str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise layout.ClusterError(f"`{' '.join(command)}` failed: {done.stderr.strip()[:500]}")


def _collect() -> None:
    current = _current()
    for path in [path for path in _folder().iterdir() if path.is_dir() and not path.is_symlink()]:
        if path != current and not _in_use(path):
            shutil.rmtree(path)


def _in_use(generation: Path) -> bool:
    """A folder exists that was cloned from it, or the containerd of an `up` that was killed still writes to it."""
    if any(user.exists() for user in (generation / _USERS).glob("*")):
        return True
    database = generation / _DATABASE
    if not database.exists():
        return False
    with database.open() as opened:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _contents() -> dict[str, Any]:
    current = _current()
    return json.loads((current / _CONTENTS).read_text()) if current else {}


def _current() -> Path | None:
    link = _folder() / "current"
    return link.resolve() if link.exists() else None


def _folder() -> Path:
    folder = layout.cache() / "node-image"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
