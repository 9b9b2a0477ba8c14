"""The simulated outside world: a model hub and a cloud, daemons beside the control plane under their real names.

What they simulate is in simulators/; this module starts them, knowing no more than their command lines.
"""

import os
import subprocess
import sys
from pathlib import Path

from tests.cluster import build, layout, machines, network, progress

_ROOT = Path(__file__).parents[2]
_PACKAGE = "tests.cluster.simulators"


def start(cluster: layout.Cluster) -> None:
    """Start them; the hub's content is made first, once for all clusters."""
    environment = _environment()
    content = cluster.state / "hub-content"
    _make_content(content, environment)
    for name, command in _commands(cluster, content).items():
        machines.Machine(cluster).ensure_daemon(name, command, env=environment)


def await_ready(cluster: layout.Cluster) -> None:
    for name, address in _addresses().items():
        progress.until(
            lambda address=address: network.answer(cluster, address, "/healthz") == 200,  # type: ignore[misc]
            what=f"an answer of the simulated {name}",
            seconds=60,
            hint=f"its log is {cluster.log / name}.log",
            pause=0.3,
        )


def _commands(cluster: layout.Cluster, content: Path) -> dict[str, list[object]]:
    state = cluster.state / "azure"
    state.mkdir(parents=True, exist_ok=True)
    kubeconfig = ["--kubeconfig", cluster.inner_kubeconfig, "--cluster", cluster.name]
    specific = {"hub": ["--content", content], "azure": ["--state", state, *kubeconfig]}
    return {name: [*_serve(cluster, name), *specific[name]] for name in specific}


def _serve(cluster: layout.Cluster, name: str) -> list[object]:
    identity = cluster.pki / name
    certificate = ["--cert", f"{identity}.crt", "--key", f"{identity}.key"]
    return [sys.executable, "-m", f"{_PACKAGE}.{name}", "--listen", f"{_addresses()[name]}:443", *certificate]


def _make_content(folder: Path, environment: dict[str, str]) -> None:
    log = layout.cache() / "log" / "content.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as output:
        command = [sys.executable, "-m", f"{_PACKAGE}.content", str(folder)]
        done = subprocess.run(
            command, env=os.environ | environment, cwd=_ROOT, stdout=output, stderr=output, check=False
        )
    if done.returncode:
        tail = "\n".join(log.read_text().splitlines()[-12:])
        raise layout.ClusterError(f"`{' '.join(command)}` failed; the end of {log}:\n{tail}")


def _environment() -> dict[str, str]:
    """What a daemon that imports this package needs to find the same folders."""
    passed = {
        name: value for name, value in os.environ.items() if name.startswith("KAITO_HERA_") and "DAEMON" not in name
    }
    path = f"{build.tools()}:{os.defpath}:/usr/sbin:/sbin"
    return {"PYTHONPATH": str(_ROOT), "PYTHONUNBUFFERED": "1", "HOME": str(Path.home()), "PATH": path, **passed}


def _addresses() -> dict[str, str]:
    return {"hub": layout.HUB, "azure": layout.AZURE}
