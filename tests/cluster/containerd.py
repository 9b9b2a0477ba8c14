"""containerd, as every node runs one: its settings, its start, and its images.

It finds the usual paths, since a node is a machine with its own /run and /var/lib.
"""

import base64
import json
import subprocess
from pathlib import Path

from tests.cluster import images, layout, machines, progress

CNI_PLUGINS = "/usr/lib/cni"
ROOT = Path("/var/lib/containerd")
_SOCKET = "/run/containerd/containerd.sock"
ENDPOINT = f"unix://{_SOCKET}"

_UNUSED = (
    "snapshotter.v1.aufs",
    "snapshotter.v1.btrfs",
    "snapshotter.v1.devmapper",
    "snapshotter.v1.zfs",
    "internal.v1.opt",
)

# restrict_oom_score_adj: a machine without CAP_SYS_RESOURCE cannot lower a score, and every sandbox would fail.
_SETTINGS = """version = 2
root = "{root}"
state = "/run/containerd"
disabled_plugins = {unused}

[grpc]
  address = "{socket}"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true

  [plugins."io.containerd.grpc.v1.cri".containerd]
    discard_unpacked_layers = true

    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"

  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{cni_plugins}"
    conf_dir = "{cni}"

  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "{registries}"
"""

# An empty [host], since containerd 1.6 refuses a file without one.
_LOGIN = """
server = "https://{host}"
ca = "{ca}"

[header]
  Authorization = "Basic {token}"

[host]
"""


def prepare(cluster: layout.Cluster) -> None:
    """Trust the cluster's authority for any registry: `_default` is for hosts without a folder of their own."""
    folder = _registries(cluster) / "_default"
    folder.mkdir(parents=True, exist_ok=True)
    layout.replace(folder / "ca.crt", cluster.ca.read_text())


def start(machine: machines.Machine, folder: Path, *, pods: str = "", root: Path = ROOT) -> None:
    """Start it with its settings in `folder`; `pods` is the subnet its pods get. Returns when it answers."""
    folder.mkdir(parents=True, exist_ok=True)
    cni = folder / "cni"
    cni.mkdir(exist_ok=True)
    if pods:
        layout.replace(cni / "10-pods.conflist", json.dumps(_network(pods), indent=1))
    settings = folder / "containerd.toml"
    content = _SETTINGS.format(
        root=root,
        unused=json.dumps([f"io.containerd.{plugin}" for plugin in _UNUSED]),
        socket=_SOCKET,
        pause=images.PAUSE,
        cni_plugins=CNI_PLUGINS,
        cni=cni,
        registries=_registries(machine.cluster),
    )
    layout.replace(settings, content)
    machine.ensure_daemon("containerd", ["containerd", "--config", settings])
    progress.until(
        lambda: _ctr(machine, "version").returncode == 0,
        what=f"an answer of containerd on {machine.name}",
        seconds=60,
        hint=f"its log is {machine.log / 'containerd.log'}",
        pause=0.05,
    )


def ctr(machine: machines.Machine, *arguments: str) -> str:
    """containerd's own client, in the namespace that holds what Kubernetes sees."""
    done = _ctr(machine, *arguments)
    if done.returncode:
        raise layout.ClusterError(f"`ctr {' '.join(arguments)}` on {machine.name} failed: {done.stderr.strip()}")
    return done.stdout


def pull(machine: machines.Machine, image: str, *, user: str, password: str) -> None:
    """Pull and unpack, then drop the layers' archives: only what is unpacked is ever used again."""
    hosts = _log_in(machine.cluster, image.partition("/")[0], f"{user}:{password}")
    ctr(machine, "images", "pull", "--hosts-dir", str(hosts), image)
    target = digest(machine, image)
    drop_archives(machine, target)
    # The kubelet reports an image by this name; a pull through it would have made it.
    ctr(machine, "images", "tag", "--force", image, f"{image.rpartition(':')[0]}@{target}")


def drop_archives(machine: machines.Machine, target: str) -> None:
    """What `discard_unpacked_layers` does for pulls through the kubelet."""
    for manifest in manifests(machine, target):
        ctr(machine, "content", "rm", *(layer["digest"] for layer in manifest["layers"]))


def digest(machine: machines.Machine, image: str) -> str:
    """The manifest that an image's name stands for."""
    return references(machine)[image]


def references(machine: machines.Machine) -> dict[str, str]:
    """Every name of every image, and the manifest that it stands for."""
    lines = (line.split() for line in ctr(machine, "images", "list").splitlines()[1:])
    return {words[0]: words[2] for words in lines}


def manifests(machine: machines.Machine, target: str) -> list[dict[str, list[dict[str, str]]]]:
    """The image manifest of this digest, or those of this machine's platform that an index names."""
    content = json.loads(ctr(machine, "content", "get", target))
    if "layers" in content:
        return [content]
    held = set(ctr(machine, "content", "list", "--quiet").split())
    named = [entry["digest"] for entry in content["manifests"] if entry["digest"] in held]
    return [found for one in named for found in manifests(machine, one)]


def _ctr(machine: machines.Machine, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [*machine.inside(), "ctr", "--address", _SOCKET, "--namespace", "k8s.io", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _registries(cluster: layout.Cluster) -> Path:
    return cluster.state / "certs.d"


def _log_in(cluster: layout.Cluster, host: str, login: str) -> Path:
    """A folder of registries that holds the login: among ctr's arguments it would show in `ps` and in every error."""
    folder = cluster.state / "certs-and-login.d"
    settings = folder / host / "hosts.toml"
    settings.parent.mkdir(parents=True, exist_ok=True)
    token = base64.b64encode(login.encode()).decode()
    layout.replace(settings, _LOGIN.format(host=host, ca=cluster.ca, token=token), mode=0o600)
    return folder


def _network(pods: str) -> dict[str, object]:
    """A routed link per pod; reservations lie in /run, so a node that lost power forgets them."""
    addresses = {
        "type": "host-local",
        "dataDir": "/run/cni-addresses",
        "ranges": [[{"subnet": pods}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    plugins = [{"type": "ptp", "ipam": addresses}, {"type": "portmap", "capabilities": {"portMappings": True}}]
    return {"cniVersion": "0.4.0", "name": "pods", "plugins": plugins}
