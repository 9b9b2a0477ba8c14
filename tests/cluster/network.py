"""The network that `world` has to itself: one bridge that carries every address, and no way out.

Pods hang on point-to-point links, so all traffic is routed and passes kube-proxy's rules. What is addressed to anywhere
else is refused at once. From the machine's loopback two doors lead in: a unix socket crosses network namespaces.
"""

import subprocess
import sys

from tests.cluster import layout, machines

BRIDGE = "k8s0"
_FIXED = (layout.API_SERVER, layout.REGISTRY, layout.HUB, layout.AZURE, layout.DNS)

SETUP = "\n".join(
    [
        "ip link set lo up",
        f"ip link add {BRIDGE} type bridge",
        *(f"ip addr add {address}/32 dev {BRIDGE}" for address in _FIXED),
        f"ip link set {BRIDGE} up",
        # A service's address needs a route before it is translated; the kernel refuses what has none.
        f"ip route add {layout.SERVICES} dev {BRIDGE}",
        "ip route add unreachable default",
        "echo 1 > /proc/sys/net/ipv4/ip_forward",
    ]
)


def node_address(slot: int) -> str:
    return f"10.240.0.{100 + slot}"


def pod_network(slot: int) -> str:
    return f"10.244.{slot}.0/24"


def add_address(world: machines.Machine, address: str) -> None:
    _ip(world, "addr", "replace", f"{address}/32", "dev", BRIDGE)


def remove_address(world: machines.Machine, address: str) -> None:
    if f" {address}/32 " in _ip(world, "addr", "show", "dev", BRIDGE):
        _ip(world, "addr", "del", f"{address}/32", "dev", BRIDGE)


def open_doors(cluster: layout.Cluster) -> None:
    """Carry the API server and the Argo server to the machine's loopback."""
    cluster.run.mkdir(parents=True, exist_ok=True)
    world = machines.Machine(cluster)
    doors = {
        "api": (f"{layout.API_SERVER}:6443", cluster.api_port),
        "argo": (f"{layout.ARGO_SERVER}:2746", cluster.argo_port),
    }
    for name, (target, port) in doors.items():
        crossing = cluster.run / f"{name}.sock"
        world.ensure_daemon(
            f"door-{name}-inside", ["socat", f"UNIX-LISTEN:{crossing},fork,unlink-early", f"TCP:{target}"]
        )
        listen = f"TCP-LISTEN:{port},bind=127.0.0.1,fork,reuseaddr"
        world.ensure_host_daemon(f"door-{name}-outside", ["socat", listen, f"UNIX-CONNECT:{crossing}"])


def answer(cluster: layout.Cluster, address: str, path: str) -> int:
    """The status with which a server in `world` answers a GET over TLS; 0 if it does not."""
    command = [*machines.Machine(cluster).inside("net"), sys.executable, "-ISc", _GET, address, path, str(cluster.ca)]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    return int(told.stdout or 0)


_GET = """
import http.client, ssl, sys
address, path, authority = sys.argv[1:]
trust = ssl.create_default_context(cafile=authority)
connection = http.client.HTTPSConnection(address, timeout=5, context=trust)
connection.request("GET", path)
print(connection.getresponse().status)
"""


def _ip(world: machines.Machine, *arguments: str) -> str:
    command = [*world.inside("net"), "ip", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise layout.ClusterError(f"`ip {' '.join(arguments)}` failed: {done.stderr.strip()}")
    return done.stdout
