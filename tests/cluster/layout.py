"""Where a cluster keeps its things, and under which addresses its parts answer.

Everything derives from the cluster's name, so clusters live side by side. This module reads the environment (and is the
only one that does so) and starts nothing.
"""

import contextlib
import fcntl
import json
import os
import re
import shutil
import socket
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

API_SERVER = "10.240.0.1"
REGISTRY = "10.240.0.10"
HUB = "10.240.0.11"
AZURE = "10.240.0.12"
DNS = "10.240.0.53"
CLUSTER_DNS = "10.96.0.10"  # the Service in front of DNS, what pods are told to ask
ARGO_SERVER = "10.96.0.20"
SERVICES = "10.96.0.0/16"
PODS = "10.244.0.0/16"

SLOTS = 32  # nodes at once, the first node included

_STATE = "/var/tmp/kaito-hera"


class ClusterError(Exception):
    """Something a person has to put right; the message says what was found and what to do."""


@dataclass(frozen=True)
class Cluster:
    """One cluster by its name: paths and ports, nothing running."""

    name: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9-]{0,19}", self.name):
            raise ClusterError(
                f"cluster name {self.name!r} is not usable: take up to 20 of a-z, 0-9 and -, starting with a letter"
            )

    @cached_property
    def state(self) -> Path:
        return _folder("KAITO_HERA_STATE", _STATE) / self.name

    @property
    def kubeconfig(self) -> Path:
        """For clients on the machine's loopback."""
        return self.state / "kubeconfig"

    @property
    def inner_kubeconfig(self) -> Path:
        """For clients inside the cluster's network namespace."""
        return self.state / "kubeconfig.inside"

    @property
    def pki(self) -> Path:
        return self.state / "pki"

    @property
    def ca(self) -> Path:
        return self.pki / "ca.crt"

    @property
    def log(self) -> Path:
        return self.state / "log"

    @property
    def run(self) -> Path:
        """Unix sockets that cross from the cluster's network namespace to the machine's."""
        return self.state / "run"

    @property
    def hosts(self) -> Path:
        """The names CoreDNS serves from a file: the simulated outside world and the nodes."""
        return self.state / "hosts"

    @property
    def nodes(self) -> Path:
        return self.state / "nodes"

    @property
    def registry(self) -> Path:
        return self.state / "registry"

    @property
    def registry_auth(self) -> Path:
        """Docker's config.json with the registry's password."""
        return self.state / "registry-auth.json"

    @property
    def unique(self) -> str:
        """The name, and which folder it is from if not from the usual one: clusters of one name may run from two."""
        root = self.state.parent
        return self.name if root == Path(_STATE) else f"{self.name}-{zlib.crc32(str(root).encode()):08x}"

    @property
    def cgroup(self) -> str:
        return f"kaito-hera-{self.unique}"

    @property
    def api_port(self) -> int:
        return self._ports["api"]

    @property
    def argo_port(self) -> int:
        return self._ports["argo"]

    @cached_property
    def _ports(self) -> dict[str, int]:
        """Two loopback ports: derived from the name, moved on where something listens, then kept."""
        kept = self.state / "ports.json"
        if kept.exists():
            return dict(json.loads(kept.read_text()))
        first = 20000 + zlib.crc32(str(self.state).encode()) % 5000 * 2
        pairs = ((port, port + 1) for port in range(first, first + 200, 2))
        api, argo = next(pair for pair in pairs if all(map(_free, pair)))
        self.state.mkdir(parents=True, exist_ok=True)
        replace(kept, json.dumps({"api": api, "argo": argo}))
        return {"api": api, "argo": argo}

    def lock(self, name: str) -> contextlib.AbstractContextManager[None]:
        """One process at a time does `name` to this cluster; the kernel drops the lock of a killed process."""
        return _locked(cache() / "locks" / f"{self.unique}-{name}")


def clusters() -> list[Cluster]:
    """Every cluster that has a state folder, running or not."""
    root = _folder("KAITO_HERA_STATE", _STATE)
    return [Cluster(path.name) for path in sorted(root.glob("*/")) if (path / "pki").is_dir()]


def standing() -> Path:
    """Where the API server that stays keeps everything; no cluster can have this name."""
    return _folder("KAITO_HERA_STATE", _STATE) / "apiserver.standing"


def standing_lock() -> contextlib.AbstractContextManager[None]:
    """One process at a time starts or stops the API server that stays."""
    return lock(f"standing-{zlib.crc32(str(standing()).encode()):08x}")


def cache() -> Path:
    """What is worth keeping between clusters: programs, images, the node image."""
    return _folder("KAITO_HERA_CACHE", "~/.cache/kaito-hera")


def lock(name: str) -> contextlib.AbstractContextManager[None]:
    """One process at a time does `name` to the cache."""
    return _locked(cache() / "locks" / name)


def replace(path: Path, text: str, mode: int = 0o644) -> None:
    """Write a file whole or not at all, and not if it reads so already: it may be mounted somewhere."""
    if path.exists() and path.read_text() == text:
        return
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    scratch.write_text(text)
    scratch.chmod(mode)
    scratch.rename(path)


def remove(path: Path) -> None:
    """Delete a file or a folder that may not exist, or only half."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _folder(variable: str, default: str) -> Path:
    chosen = Path(os.environ.get(variable) or default).expanduser().resolve()
    for hidden in (Path("/var/lib"), Path("/var/log"), Path("/run")):
        if chosen.is_relative_to(hidden):
            raise ClusterError(
                f"{variable}={chosen} lies under {hidden}, which every node covers with its own: move it"
            )
    return chosen


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
