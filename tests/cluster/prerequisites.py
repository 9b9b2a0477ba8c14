"""What the cluster needs of the machine it runs on, and how Debian gets it.

All that is missing is named in one message. On Debian, as root, it is installed; packages that would start a service of
their own are kept from doing so, since each node runs its own containerd.
"""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.cluster import layout, progress

PACKAGES = {  # Debian package: what is looked for
    "apache2-utils": "htpasswd",
    "buildah": "buildah",
    "busybox-static": "busybox",
    "containerd": "containerd",
    "containernetworking-plugins": "/usr/lib/cni/ptp",
    "debootstrap": "debootstrap",
    "docker-registry": "docker-registry",
    "iproute2": "ip",
    "iptables": "iptables",
    "openssl": "openssl",
    "runc": "runc",
    "skopeo": "skopeo",
    "socat": "socat",
    "util-linux": "nsenter",
}
_SERVICES = ("containerd", "docker-registry")
_POLICY = Path("/usr/sbin/policy-rc.d")
_REFUSAL = "#!/bin/sh\n# tests/cluster installs packages without starting their services.\nexit 101\n"
_GO = (1, 26)
_GIB = 1 << 30
_ROOM = 8  # GiB, to run
_FIRST = 30  # GiB, to build the programs and images first


def ensure() -> None:
    """Return once everything is there; a ClusterError names all that is missing and cannot be installed from here."""
    if os.geteuid() != 0:
        raise layout.ClusterError("the cluster makes network namespaces and mounts: run it as root (sudo make up)")
    refusals = [*_kernel(), *_go(), *_disk()]
    missing = packages_missing()
    if missing and not Path("/etc/debian_version").exists():
        refusals.append(f"not Debian, so install what provides these yourself: {', '.join(missing)}")
    if refusals:
        raise layout.ClusterError("this machine cannot run the cluster yet:\n  - " + "\n  - ".join(refusals))
    if missing:
        _install(missing)


def packages_missing() -> list[str]:
    """Debian packages whose program is not to be found, whatever package it came from."""
    return [package for package, program in PACKAGES.items() if not shutil.which(program)]


def _go() -> list[str]:
    found = shutil.which("go")
    if not found:
        return [f"no `go` on the PATH: install Go {_GO[0]}.{_GO[1]} or newer"]
    told = subprocess.run(["go", "env", "GOVERSION"], capture_output=True, text=True, check=False).stdout.strip()
    numbers = tuple(int(part) for part in told.removeprefix("go").split(".")[:2] if part.isdigit())
    return [] if numbers >= _GO else [f"`{found}` is {told or 'broken'}: install Go {_GO[0]}.{_GO[1]} or newer"]


def _kernel() -> list[str]:
    if sys.platform != "linux":
        return [f"the platform is {sys.platform}: Linux is needed"]
    if not Path("/sys/fs/cgroup/cgroup.controllers").exists() and not Path("/sys/fs/cgroup/memory").is_dir():
        return ["no cgroups below /sys/fs/cgroup: mount them (v2, or v1 with one folder per controller)"]
    return []


def _disk() -> list[str]:
    folder = layout.cache()
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free / _GIB
    needed = _ROOM if (folder / "node-image").exists() else _FIRST
    if free > needed:
        return []
    return [f"{free:.0f} GiB are free for {folder}, {needed} are needed: make room, or say make ... CACHE=FOLDER"]


def _install(packages: list[str]) -> None:
    command = ["apt-get", "install", "-y", "--no-install-recommends", *packages]
    print(f"  installing Debian packages: {' '.join(command)}", flush=True)
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    with layout.lock("apt"), progress.part("Debian packages", "apt-get"), _no_services_started():
        _apt(["apt-get", "update"], environment)
        _apt(command, environment)
    if still := packages_missing():
        raise layout.ClusterError(f"apt-get was asked for {' '.join(packages)}; still missing: {' '.join(still)}")


def _apt(command: list[str], environment: dict[str, str]) -> None:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-12:])
        raise layout.ClusterError(f"`{' '.join(command)}` failed:\n{tail}")


@contextlib.contextmanager
def _no_services_started() -> Iterator[None]:
    """Debian asks policy-rc.d before it starts a service; 101 is its word for no. Another policy stays."""
    ours = not _POLICY.exists() or _POLICY.read_text() == _REFUSAL  # ours too: what a killed run left
    if ours:
        _POLICY.write_text(_REFUSAL)
        _POLICY.chmod(0o755)
    present = {service for service in _SERVICES if _unit(service).exists()}
    try:
        yield
    finally:
        if ours:
            _POLICY.unlink(missing_ok=True)
        new = [service for service in _SERVICES if service not in present and _unit(service).exists()]
        if new and shutil.which("systemctl"):  # else the next boot would start them
            subprocess.run(["systemctl", "disable", *new], capture_output=True, check=False)


def _unit(service: str) -> Path:
    return Path("/lib/systemd/system") / f"{service}.service"
