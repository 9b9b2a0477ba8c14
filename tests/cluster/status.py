"""What a person asks of a running cluster: where it answers, what runs, what it weighs."""

import subprocess
from pathlib import Path

from tests.cluster import build, layout, machines, node_image, nodes

_MIB = 1 << 20


def point_out(cluster: layout.Cluster) -> None:
    """The lines to copy after `up`."""
    print(f"  export KUBECONFIG={cluster.kubeconfig} PATH={build.tools()}:$PATH")
    print(f"  Argo        http://127.0.0.1:{cluster.argo_port}")
    print(f"  registry    NAME.azurecr.io from inside, password in {cluster.registry_auth}")
    print(
        f"  inside      .venv/bin/python -m tests.cluster enter {cluster.name} -- curl https://huggingface.co/healthz"
    )


def show(clusters: list[layout.Cluster]) -> None:
    if not clusters:
        print("no cluster; `make up` starts one")
    for cluster in clusters:
        on = machines.Machine(cluster).on()
        print(f"cluster {cluster.name}: {'on' if on else 'off'}, state in {cluster.state}")
        if on:
            _show_running(cluster)
    print(f"cache {layout.cache()}: {_size(layout.cache()) / _MIB:.0f} MiB")
    for image, digest in node_image.contents().items():
        print(f"  node image  {image} {digest[:19]}")


def _show_running(cluster: layout.Cluster) -> None:
    point_out(cluster)
    for name in nodes.names(cluster):
        state = "off" if not nodes.running(cluster, name) else "Ready" if nodes.ready(cluster, name) else "NotReady"
        print(f"  node        {name} {state}")
    weights = memory(cluster)
    for name, resident in weights.items():
        print(f"  memory      {name:<24} {resident / _MIB:6.0f} MiB")
    print(f"  memory      {'together':<24} {sum(weights.values()) / _MIB:6.0f} MiB")


def memory(cluster: layout.Cluster) -> dict[str, int]:
    """Resident bytes by daemon; what shares pages is counted twice."""
    weights: dict[str, int] = {}
    for machine in (machines.Machine(cluster), *(machines.Machine(cluster, name) for name in nodes.names(cluster))):
        where = "" if machine.name == machines.WORLD else f"{machine.name} "
        weights |= {f"{where}{name}": resident for name, resident in machine.memory().items()}
    return weights


def _size(folder: Path) -> int:
    told = subprocess.run(["du", "--summarize", "--block-size=1", folder], capture_output=True, text=True, check=False)
    return int(told.stdout.split()[0])
