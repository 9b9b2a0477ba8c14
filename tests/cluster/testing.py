"""An API server for tests: etcd and kube-apiserver on the loopback, without root, namespaces or nodes.

    with testing.apiserver() as kubeconfig:
        testing.install(kubeconfig)

It needs the programs that `make cluster-binaries` builds. Nothing schedules or runs pods and no controller answers, so
a test decides alone what happens. `standing.py` makes one that outlives its caller of the same parts.
"""

import contextlib
import hashlib
import json
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.cluster import build, control_plane, layout, pki, progress

PROGRAMS = ("etcd", "kube-apiserver", "kubectl")
_ARGO = Path(__file__).parents[2] / "argo"
_TABLES = "presettables.hera.kaito.sh"

# Admitted by the schema and by no policy: as long as it is admitted, the policies do not hold yet.
_PROBE = {
    "apiVersion": "kaito.sh/v1alpha1",
    "kind": "Workspace",
    "metadata": {"name": "probe", "namespace": "default"},
    "resource": {"instanceType": "Standard_NC24ads_A100_v4", "labelSelector": {"matchLabels": {"probe": "true"}}},
    "inference": {"preset": {"name": "no-such-preset"}},
}


@contextlib.contextmanager
def apiserver(*, flags: Sequence[str] = ()) -> Iterator[Path]:
    """Yield the path of a kubeconfig with every right; `flags` are further ones for kube-apiserver."""
    with contextlib.ExitStack() as stack:
        parts = Parts.prepare(Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kaito-hera-"))))
        stack.enter_context(_running(parts.etcd, parts.log("etcd")))
        process = stack.enter_context(_running([*parts.apiserver, *flags], parts.log("apiserver")))
        parts.await_ready(lambda: process.poll() is None)
        yield parts.kubeconfig


def install(kubeconfig: Path, *, argo: bool = False) -> None:
    """Apply argo/, with Argo's Workflow if asked for, and return once its kinds answer and its policies hold."""
    if argo:
        kubectl(kubeconfig, "apply", "--server-side", "-f", "-", stdin=json.dumps(_workflow_kind()))
    kubectl(kubeconfig, "apply", "--server-side", "--force-conflicts", "-f", str(_ARGO / "policy-kind.yaml"))
    _until(lambda: _try(kubeconfig, "get", _TABLES).returncode == 0, f"an answer for {_TABLES}")
    kubectl(kubeconfig, "apply", "--server-side", "--force-conflicts", "-k", str(_ARGO))
    kubectl(kubeconfig, "wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
    for kind in ("workspaces.kaito.sh", *(["workflows.argoproj.io"] if argo else [])):
        # established is not yet able to answer
        _until(lambda kind=kind: _try(kubeconfig, "get", kind, "-A").returncode == 0, f"an answer for {kind}")  # type: ignore[misc]
    if kubectl(kubeconfig, "get", "validatingadmissionpolicybindings", "-o", "name"):
        _until(lambda: _refused(kubeconfig), "admission policies that hold")


def installed() -> str:
    """What `install` would apply, as a hash."""
    digest = hashlib.sha256()
    for file in sorted(_ARGO.iterdir()):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _workflow_kind() -> object:
    """Of Argo's CRDs the one that the operator writes: each costs the API server seconds, for it merges all schemas."""
    kinds = json.loads((build.binary("argo").parent / "crds.json").read_text())["items"]
    return next(kind for kind in kinds if kind["spec"]["names"]["kind"] == "Workflow")


def kubectl(kubeconfig: Path, *arguments: str, stdin: str | None = None) -> str:
    """Standard output; a ClusterError carries what kubectl had to say."""
    done = _try(kubeconfig, *arguments, stdin=stdin)
    if done.returncode:
        raise layout.ClusterError(f"`kubectl {' '.join(arguments)}` failed: {done.stderr.strip()}")
    return done.stdout.strip()


@dataclass(frozen=True)
class Parts:
    """What the two servers of one folder are started with; everything they keep is in there."""

    folder: Path
    servers: control_plane.Servers

    @classmethod
    def prepare(cls, folder: Path) -> "Parts":
        """Certificates, which are kept, and ports that are free now, with a kubeconfig for them."""
        port, client, peer = _free_ports(3)
        servers = control_plane.Servers(folder / "certificates", folder / "etcd", "127.0.0.1", port, (client, peer))
        pki.authority(servers.pki, "kaito-hera test")
        pki.issue(servers.pki, "admin", pki.IDENTITIES["admin"], [])
        pki.issue(servers.pki, "apiserver", "/CN=apiserver", pki.SERVERS["apiserver"])
        pki.kubeconfig(servers.pki, "admin", folder / "kubeconfig", f"https://127.0.0.1:{port}")
        return cls(folder, servers)

    @property
    def kubeconfig(self) -> Path:
        return self.folder / "kubeconfig"

    @property
    def etcd(self) -> list[object]:
        return self.servers.etcd()

    @property
    def apiserver(self) -> list[object]:
        """Nobody makes service accounts here, so pods must do without one."""
        return [*self.servers.apiserver(), "--disable-admission-plugins=ServiceAccount"]

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def await_ready(self, alive: Callable[[], bool]) -> None:
        """Wait for the API server's readiness or end; `alive` says whether it still runs."""
        with contextlib.suppress(TimeoutError):
            _until(lambda: answers(self.kubeconfig) or not alive(), "a ready API server")
            if alive():
                return
        state = "runs" if alive() else "has ended"
        end = "\n".join(self.log("apiserver").read_text().splitlines()[-5:])
        raise layout.ClusterError(f"kube-apiserver did not become ready and {state}; its log ends:\n{end}")


def answers(kubeconfig: Path) -> bool:
    """The API server of a kubeconfig is ready."""
    return _try(kubeconfig, "get", "--raw", "/readyz").returncode == 0


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


def _refused(kubeconfig: Path) -> bool:
    probe = _try(kubeconfig, "create", "--dry-run=server", "-f", "-", stdin=json.dumps(_PROBE))
    return "no-such-preset" in probe.stderr  # not for the tables' absence: they arrive a moment later


def _try(kubeconfig: Path, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    command = [str(build.binary("kubectl")), "--kubeconfig", str(kubeconfig), *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)


def _until(reached: Callable[[], bool], what: str) -> None:
    progress.until(reached, what=what, seconds=60, hint="")


def _free_ports(count: int) -> list[int]:
    """Ports that are free now, all held at once so that they differ."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
