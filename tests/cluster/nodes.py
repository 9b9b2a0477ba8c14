"""Real nodes: each a machine with its own containerd and kubelet, booted and removed as a cloud does it.

The cluster boots its first node with this, the simulated cloud all others. `boot` and `remove` may be repeated at any
time, also after their caller was killed halfway. A node's disk starts as a clone of the node image, so its images are
there.
"""

import dataclasses
import datetime
import json
from dataclasses import dataclass, field
from pathlib import Path

from tests.cluster import build, cgroups, containerd, dns, kubectl, layout, machines, network, node_image, pki

FIRST = "node-0"
LEASE_SECONDS = 20  # a kubelet renews after a quarter of it


@dataclass(frozen=True)
class NodeSpec:
    """What a cloud is asked for. A taint reads key=value:Effect."""

    name: str
    labels: dict[str, str] = field(default_factory=dict)
    taints: list[str] = field(default_factory=list)
    instance_type: str = ""
    gpus: int = 0
    provider_id: str = ""

    def all_labels(self) -> dict[str, str]:
        own = {"node.kubernetes.io/instance-type": self.instance_type} if self.instance_type else {}
        return own | self.labels


def boot(cluster: layout.Cluster, spec: NodeSpec, *, gpu_delay: float = 2.0) -> None:
    """Start the node; it joins by itself a second or two later, and its GPUs `gpu_delay` seconds after that.

    Booting a node that runs changes nothing; one that was switched off comes back with its disk; one that was asked for
    differently is replaced.
    """
    with cluster.lock(f"node-{spec.name}"):
        known = read(cluster, spec.name)
        if known and known[0] != spec:
            _remove(cluster, spec.name)
        slot = take_slot(cluster, spec)
        folder = cluster.nodes / spec.name
        for name in ("lib", "log"):
            (folder / name).mkdir(exist_ok=True)
        node_image.clone(folder / "lib/containerd")
        _name(cluster)
        machine = machines.Machine(cluster, spec.name)
        network.add_address(machine.world, network.node_address(slot))
        machine.power_on(_mounts(folder))
        containerd.start(machine, folder, pods=network.pod_network(slot))
        machine.ensure_daemon("kubelet", _kubelet(cluster, spec, slot))
        if spec.gpus:
            machine.ensure_daemon("gpu-plugin", [build.binary("gpu-plugin"), spec.gpus, f"{gpu_delay}s"])


def remove(cluster: layout.Cluster, name: str) -> None:
    """Switch the node off, delete its Node object as a cloud's controller would, and free its disk and addresses."""
    with cluster.lock(f"node-{name}"):
        _remove(cluster, name)


def power_off(cluster: layout.Cluster, name: str) -> None:
    """Pull the plug: disk and Node object stay, the Node turns NotReady. `boot` with the same spec brings it back."""
    machines.Machine(cluster, name).power_off()
    cgroups.remove(cluster, name)


def ready(cluster: layout.Cluster, name: str) -> bool:
    """The API server has heard from the node that pods can run on it."""
    node = kubectl.read(cluster, "node", name)
    conditions = node["status"].get("conditions", []) if node else []
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def renewed(cluster: layout.Cluster, name: str, since: datetime.datetime) -> bool:
    """The kubelet has renewed its lease: after a power cut of the whole cluster a Node still says Ready for a while."""
    lease = kubectl.read(cluster, "lease", name, "--namespace=kube-node-lease")
    return lease is not None and datetime.datetime.fromisoformat(lease["spec"]["renewTime"]) > since


def names(cluster: layout.Cluster) -> list[str]:
    """Every node that was booted and not removed, switched on or not."""
    return sorted(_specs(cluster))


def running(cluster: layout.Cluster, name: str) -> bool:
    return machines.Machine(cluster, name).on()


def _remove(cluster: layout.Cluster, name: str) -> None:
    known = read(cluster, name)
    power_off(cluster, name)
    if machines.Machine(cluster).on():
        if known:
            network.remove_address(machines.Machine(cluster), network.node_address(known[1]))
        kubectl.run(cluster, "delete", "node", name, "--ignore-not-found", "--wait=false")
    for path in cluster.pki.glob(f"node-{name}.*"):
        path.unlink()
    layout.remove(cluster.nodes / name)  # with it the slot is free
    _name(cluster)


def take_slot(cluster: layout.Cluster, spec: NodeSpec) -> int:
    """The lowest free number decides a node's addresses; it is taken by writing the spec down."""
    with cluster.lock("slots"):
        taken = _specs(cluster)
        if spec.name in taken:
            return taken[spec.name][1]
        free = sorted(set(range(layout.SLOTS)) - {slot for _, slot in taken.values()})
        if not free:
            raise layout.ClusterError(
                f"no room for node {spec.name}: {len(taken)} nodes exist, {layout.SLOTS} are the limit"
            )
        folder = cluster.nodes / spec.name
        folder.mkdir(parents=True, exist_ok=True)
        layout.replace(folder / "spec.json", json.dumps({"slot": free[0], **dataclasses.asdict(spec)}, indent=1))
        return free[0]


def _specs(cluster: layout.Cluster) -> dict[str, tuple[NodeSpec, int]]:
    found = {path.parent.name: read(cluster, path.parent.name) for path in cluster.nodes.glob("*/spec.json")}
    return {name: known for name, known in found.items() if known}


def read(cluster: layout.Cluster, name: str) -> tuple[NodeSpec, int] | None:
    try:
        content = json.loads((cluster.nodes / name / "spec.json").read_text())
    except FileNotFoundError:
        return None
    slot = content.pop("slot")
    return NodeSpec(**content), slot


def _name(cluster: layout.Cluster) -> None:
    with cluster.lock("slots"):
        specs = _specs(cluster)
        dns.write_hosts(cluster, {name: network.node_address(slot) for name, (_, slot) in specs.items()})


def _mounts(folder: Path) -> str:
    """Its own /var/lib and /var/log; mounts are shared within the machine, so volumes may propagate into containers."""
    return f"""
        mount --bind {folder / "lib"} /var/lib
        mount --bind {folder / "log"} /var/log
        mkdir -p /var/lib/kubelet /var/lib/cni
        mount --make-rshared /
    """


def _kubelet(cluster: layout.Cluster, spec: NodeSpec, slot: int) -> list[object]:
    folder = cluster.nodes / spec.name
    address = network.node_address(slot)
    identity = f"node-{spec.name}"
    pki.issue(
        cluster.pki, identity, f"/O=system:nodes/CN=system:node:{spec.name}", [f"DNS:{spec.name}", f"IP:{address}"]
    )
    kubeconfig = folder / "kubeconfig"
    pki.kubeconfig(cluster.pki, identity, kubeconfig, f"https://{layout.API_SERVER}:6443")
    settings = folder / "kubelet.yaml"
    content = kubelet_settings(cluster, spec, address, cgroups.ensure(cluster, spec.name))
    layout.replace(settings, json.dumps(content, indent=1))
    labels = ",".join(f"{key}={value}" for key, value in spec.all_labels().items())
    return [
        build.binary("kubelet"),
        f"--config={settings}",
        f"--kubeconfig={kubeconfig}",
        f"--hostname-override={spec.name}",
        f"--node-ip={address}",
        *([f"--node-labels={labels}"] if labels else []),
    ]


def kubelet_settings(cluster: layout.Cluster, spec: NodeSpec, address: str, cgroup: str) -> dict[str, object]:
    identity = cluster.pki / f"node-{spec.name}"
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": address,
        "healthzPort": 0,  # all kubelets share the loopback address
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(cluster.ca)},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": f"{identity}.crt",
        "tlsPrivateKeyFile": f"{identity}.key",
        "containerRuntimeEndpoint": containerd.ENDPOINT,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": cgroup,
        "clusterDNS": [layout.CLUSTER_DNS],
        "clusterDomain": "cluster.local",
        "resolvConf": str(cluster.state / "resolv.conf"),
        "failSwapOn": False,
        "serializeImagePulls": False,
        # The disk is the host's: only a nearly full one is this node's trouble, and deleting images frees nothing.
        "evictionHard": {"imagefs.available": "1Gi", "nodefs.available": "1Gi", "memory.available": "100Mi"},
        "imageGCHighThresholdPercent": 100,
        # What changes is told within a second; what does not, as seldom as by default.
        "nodeStatusUpdateFrequency": "1s",
        "nodeStatusReportFrequency": "5m",
        "nodeLeaseDurationSeconds": LEASE_SECONDS,
        "providerID": spec.provider_id,
        "registerWithTaints": [parse_taint(text) for text in spec.taints],
    }


def parse_taint(text: str) -> dict[str, str]:
    key_value, _, effect = text.rpartition(":")
    key, _, value = key_value.partition("=")
    if not key or effect not in {"NoSchedule", "PreferNoSchedule", "NoExecute"}:
        raise layout.ClusterError(f"taint {text!r} is not of the form key=value:NoSchedule")
    return {"key": key, "value": value, "effect": effect}
