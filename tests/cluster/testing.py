"""An API server for tests: etcd and kube-apiserver on the loopback, without root, namespaces or nodes.

    with testing.apiserver() as kubeconfig:
        ...

It needs the programs that `make cluster-binaries` builds. Nothing schedules or runs pods and no controller answers, so
a test decides alone what happens.
"""

import contextlib
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.cluster import build, control_plane, layout, pki, progress


def available() -> bool:
    """The programs are built."""
    return all(build.binary(name).exists() for name in ("etcd", "kube-apiserver", "kubectl"))


@contextlib.contextmanager
def apiserver(*, flags: Sequence[str] = ()) -> Iterator[Path]:
    """Yield the path of a kubeconfig with every right; `flags` are further ones for kube-apiserver."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kaito-hera-")))
        port, *etcd_ports = _free_ports(3)
        client, peer = etcd_ports
        servers = control_plane.Servers(folder / "pki", folder / "etcd", "127.0.0.1", port, (client, peer))
        pki.authority(servers.pki, "kaito-hera test")
        pki.issue(servers.pki, "admin", pki.IDENTITIES["admin"], [])
        pki.issue(servers.pki, "apiserver", "/CN=apiserver", pki.SERVERS["apiserver"])
        kubeconfig = folder / "kubeconfig"
        pki.kubeconfig(servers.pki, "admin", kubeconfig, f"https://127.0.0.1:{port}")
        stack.enter_context(_running(servers.etcd(), folder / "etcd.log"))
        # Nobody makes service accounts here, so pods must do without one.
        command = [*servers.apiserver(), "--disable-admission-plugins=ServiceAccount", *flags]
        process = stack.enter_context(_running(command, folder / "apiserver.log"))
        _await_ready(process, kubeconfig)
        yield kubeconfig


@contextlib.contextmanager
def _running(command: Sequence[object], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A child that ends with us, also when we are killed."""
    mortal = ["setpriv", "--pdeathsig", "KILL", "--"]
    with (
        log.open("w") as output,
        subprocess.Popen(
            [*mortal, *map(str, command)], stdin=subprocess.DEVNULL, stdout=output, stderr=output
        ) as process,
    ):
        try:
            yield process
        finally:
            process.kill()  # what it stored goes with the folder


def _await_ready(process: subprocess.Popen[bytes], kubeconfig: Path) -> None:
    with contextlib.suppress(TimeoutError):
        progress.until(
            lambda: process.poll() is not None or _ready(kubeconfig), what="a ready API server", seconds=60, hint=""
        )
        if process.poll() is None:
            return
    end = "\n".join((kubeconfig.parent / "apiserver.log").read_text().splitlines()[-5:])
    raise layout.ClusterError(
        f"kube-apiserver did not become ready (exit status {process.poll()}); its log ends:\n{end}"
    )


def _ready(kubeconfig: Path) -> bool:
    command = [str(build.binary("kubectl")), "--kubeconfig", str(kubeconfig), "get", "--raw", "/readyz"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _free_ports(count: int) -> list[int]:
    """Ports that are free now, all held at once so that they differ."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
