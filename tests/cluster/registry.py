"""Debian's registry server as every NAME.azurecr.io, with a password and a certificate of the cluster's authority.

What is pushed lives and dies with the cluster: it is part of its state. Images that the node image was made of are kept
in the cache as well (see node_image.py) and are there again after the next `up`; `keep` and `restore` do that. Layers
are hard links where the file system allows, so keeping costs no disk.
"""

import base64
import hashlib
import json
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.cluster import layout, machines, network, progress

ANY = "*.azurecr.io"
_USER = "kaito"
STORE = Path("docker/registry/v2")


def prepare(cluster: layout.Cluster) -> None:
    """Password, settings and the kept images."""
    if not cluster.registry_auth.exists():
        password = secrets.token_urlsafe(18)
        hashed = subprocess.run(
            ["htpasswd", "-niB", _USER], input=password, capture_output=True, text=True, check=True
        ).stdout.strip()
        layout.replace(cluster.state / "registry.htpasswd", f"{hashed}\n", mode=0o600)
        layout.replace(cluster.registry_auth, _docker_config(password), mode=0o600)
    layout.replace(cluster.state / "registry.yaml", json.dumps(_settings(cluster), indent=1))
    if not cluster.registry.exists():
        restore(cluster)


def start(cluster: layout.Cluster) -> None:
    command = ["docker-registry", "serve", cluster.state / "registry.yaml"]
    machines.Machine(cluster).ensure_daemon("registry", command, env={"OTEL_TRACES_EXPORTER": "none"})


def credentials(cluster: layout.Cluster) -> tuple[str, str]:
    entry = json.loads(cluster.registry_auth.read_text())["auths"][ANY]
    return entry["username"], entry["password"]


def manifest_digest(cluster: layout.Cluster, image: str) -> str:
    """What a tag points to now."""
    repository, tag = split(image)
    link = cluster.registry / STORE / "repositories" / repository / "_manifests/tags" / tag / "current/link"
    if not link.exists():
        raise layout.ClusterError(
            f"image {image} is not in the registry of cluster {cluster.name}: push it first, for example with"
            f" `python -m tests.cluster enter {cluster.name} -- skopeo copy ... docker://{image}`"
        )
    return link.read_text().strip()


def split(image: str) -> tuple[str, str]:
    """kaito.azurecr.io/a/b:tag -> (a/b, tag): the registry serves every host alike."""
    host, _, rest = image.partition("/")
    repository, _, tag = rest.rpartition(":")
    if not (host.endswith(".azurecr.io") and repository and tag):
        raise layout.ClusterError(f"image {image!r} is not of the form NAME.azurecr.io/REPOSITORY:TAG")
    return repository, tag


def keep(cluster: layout.Cluster, images: Iterable[str], *, besides: Iterable[str] = ()) -> None:
    """Copy these tags to the cache; of what it held before, only `besides` stays."""
    wanted = {split(image) for image in images}
    for repository, tag in wanted:
        digest = manifest_digest(cluster, f"any.azurecr.io/{repository}:{tag}")
        _transfer(cluster.registry, _kept(), repository, tag, digest)
    _sweep(_kept(), wanted | {split(image) for image in besides})


def restore(cluster: layout.Cluster) -> None:
    """Give a new cluster's registry what is kept."""
    scratch = cluster.registry.with_name("registry.part")
    layout.remove(scratch)
    scratch.mkdir(parents=True)
    for (repository, tag), link in _tags(_kept()).items():
        _transfer(_kept(), scratch, repository, tag, link.read_text().strip())
    scratch.rename(cluster.registry)


def forget() -> None:
    """Empty the cache's store; running clusters keep theirs."""
    layout.remove(_kept())


def await_ready(cluster: layout.Cluster) -> None:
    progress.until(
        lambda: network.answer(cluster, layout.REGISTRY, "/v2/") == 401,  # it wants the password, so it works
        what="the registry's answer",
        seconds=30,
        hint=f"its log is {cluster.log / 'registry.log'}",
    )


def _kept() -> Path:
    return layout.cache() / "registry"


def _docker_config(password: str) -> str:
    """Kubernetes matches the pattern; skopeo and buildah know exact hosts only, so the usual one is listed too."""
    token = base64.b64encode(f"{_USER}:{password}".encode()).decode()
    entry = {"username": _USER, "password": password, "auth": token}
    return json.dumps({"auths": {"kaito.azurecr.io": entry, ANY: entry}}, indent=1)


def _settings(cluster: layout.Cluster) -> dict[str, object]:
    password = credentials(cluster)[1].encode()
    certificate = {"certificate": str(cluster.pki / "registry.crt"), "key": str(cluster.pki / "registry.key")}
    return {
        "version": "0.1",
        "log": {"level": "warn", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(cluster.registry)}, "delete": {"enabled": True}},
        "http": {"addr": f"{layout.REGISTRY}:443", "tls": certificate, "secret": hashlib.sha256(password).hexdigest()},
        "auth": {"htpasswd": {"realm": "azurecr.io", "path": str(cluster.state / "registry.htpasswd")}},
    }


def _transfer(source: Path, target: Path, repository: str, tag: str, digest: str) -> None:
    """Bring one tag from store to store: layers first, the tag last, so a killed transfer shows nothing half."""
    folder = target / STORE / "repositories" / repository
    for one in [*_closure(source, digest)]:
        _link(source, target, one)
        kind = "_manifests/revisions" if _is_manifest(source, one) else "_layers"
        write_link(folder / kind / one.replace(":", "/") / "link", one)
    tags = folder / "_manifests/tags" / tag
    write_link(tags / "index" / digest.replace(":", "/") / "link", digest)
    write_link(tags / "current/link", digest)


def _tags(store: Path) -> dict[tuple[str, str], Path]:
    """(repository, tag): the file that names its manifest."""
    repositories = store / STORE / "repositories"
    links = repositories.glob("**/_manifests/tags/*/current/link")
    return {(str(link.parents[4].relative_to(repositories)), link.parents[1].name): link for link in links}


def _sweep(store: Path, wanted: set[tuple[str, str]]) -> None:
    """Remove other tags, and the blobs that no tag needs then."""
    tags = _tags(store)
    for name in tags.keys() - wanted:
        layout.remove(tags.pop(name).parents[1])
    needed = {blob(store, one) for link in tags.values() for one in _closure(store, link.read_text().strip())}
    for path in set((store / STORE / "blobs").glob("*/*/*/data")) - needed:
        layout.remove(path.parent)


def _closure(store: Path, digest: str) -> Iterator[str]:
    """A manifest and all it names, what it names first."""
    content = json.loads(blob(store, digest).read_text())
    for one in content.get("manifests", []):
        yield from _closure(store, one["digest"])
    yield from (one["digest"] for one in [*content.get("layers", []), *filter(None, [content.get("config")])])
    yield digest


def _is_manifest(store: Path, digest: str) -> bool:
    path = blob(store, digest)
    if path.stat().st_size > 1 << 20:
        return False
    try:
        return "schemaVersion" in json.loads(path.read_bytes())
    except ValueError:
        return False


def blob(store: Path, digest: str) -> Path:
    algorithm, value = digest.split(":")
    return store / STORE / "blobs" / algorithm / value[:2] / value / "data"


def _link(source: Path, target: Path, digest: str) -> None:
    there = blob(target, digest)
    if there.exists():
        return
    there.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(blob(source, digest), there)
    except OSError:  # another file system
        scratch = there.with_name("part")
        shutil.copyfile(blob(source, digest), scratch)
        scratch.rename(there)


def write_link(path: Path, digest: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    layout.replace(path, digest)
