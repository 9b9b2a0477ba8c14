"""etcd and Kubernetes' own servers, as daemons of the cluster's first machine."""

import json
from dataclasses import dataclass
from pathlib import Path

from tests.cluster import build, kubectl, layout, machines, progress

_GRACE = "30s"  # how long a silent node counts as alive; short, so that tests of lost nodes are

# Argo's full CRDs would bring it to 2 GiB; collecting less often than by default until then doubles its speed.
THRIFTY = {"GOGC": "200", "GOMEMLIMIT": "1000MiB"}


def start(cluster: layout.Cluster) -> None:
    """Start what does not run; `await_ready` says when it answers."""
    world = machines.Machine(cluster)
    servers = Servers(cluster.pki, cluster.state / "etcd")
    world.ensure_daemon("etcd", servers.etcd())
    world.ensure_daemon("apiserver", servers.apiserver(), env=THRIFTY)
    world.ensure_daemon("controller-manager", _controller_manager(cluster))
    world.ensure_daemon("scheduler", _scheduler(cluster))
    world.ensure_daemon("proxy", _proxy(cluster))


def await_ready(cluster: layout.Cluster) -> None:
    progress.until(
        lambda: kubectl.succeeds(cluster, "get", "--raw", "/readyz"),
        what="a ready API server",
        seconds=120,
        hint=f"its log is {cluster.log / 'apiserver.log'}",
    )
    progress.until(
        lambda: kubectl.reaches_from_outside(cluster),
        what=f"the API server on 127.0.0.1:{cluster.api_port}",
        seconds=10,
        hint=f"something else may have taken that port since: `ss -ltnp`; after `down`, {cluster.name} gets another",
    )


@dataclass(frozen=True)
class Servers:
    """Where an etcd and an API server keep their things and listen."""

    pki: Path
    data: Path
    address: str = layout.API_SERVER
    port: int = 6443
    etcd_ports: tuple[int, int] = (2379, 2380)

    def etcd(self) -> list[object]:
        """Without fsync: a machine that loses power loses this cluster anyway."""
        client, peer = (f"http://127.0.0.1:{port}" for port in self.etcd_ports)
        return [
            build.binary("etcd"),
            f"--data-dir={self.data}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",
            "--log-level=warn",
        ]

    def apiserver(self) -> list[object]:
        return [
            build.binary("kube-apiserver"),
            f"--etcd-servers=http://127.0.0.1:{self.etcd_ports[0]}",
            f"--bind-address={self.address}",
            f"--advertise-address={self.address}",
            f"--secure-port={self.port}",
            f"--service-cluster-ip-range={layout.SERVICES}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged=true",
            f"--client-ca-file={self.pki / 'ca.crt'}",
            f"--tls-cert-file={self.pki / 'apiserver.crt'}",
            f"--tls-private-key-file={self.pki / 'apiserver.key'}",
            f"--kubelet-client-certificate={self.pki / 'admin.crt'}",
            f"--kubelet-client-key={self.pki / 'admin.key'}",
            "--kubelet-preferred-address-types=InternalIP",  # `kubectl logs` needs no node names then
            f"--service-account-key-file={self.pki / 'service-accounts.pub'}",
            f"--service-account-signing-key-file={self.pki / 'service-accounts.key'}",
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        ]


def _controller_manager(cluster: layout.Cluster) -> list[object]:
    return [
        build.binary("kube-controller-manager"),
        f"--kubeconfig={cluster.pki / 'controller-manager.kubeconfig'}",
        f"--service-account-private-key-file={cluster.pki / 'service-accounts.key'}",
        f"--root-ca-file={cluster.ca}",
        f"--cluster-signing-cert-file={cluster.ca}",
        f"--cluster-signing-key-file={cluster.pki / 'ca.key'}",
        "--use-service-account-credentials=true",
        "--allocate-node-cidrs=false",
        "--leader-elect=false",
        f"--node-monitor-grace-period={_GRACE}",
    ]


def _scheduler(cluster: layout.Cluster) -> list[object]:
    return [
        build.binary("kube-scheduler"),
        f"--kubeconfig={cluster.pki / 'scheduler.kubeconfig'}",
        "--leader-elect=false",
    ]


def _proxy(cluster: layout.Cluster) -> list[object]:
    """One for all nodes, since they share a network namespace."""
    settings = cluster.state / "proxy.yaml"
    content = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": str(cluster.pki / "proxy.kubeconfig")},
        "clusterCIDR": layout.PODS,
        "conntrack": {"maxPerCore": 0},  # the limit belongs to the host and is not ours to set
        "hostnameOverride": "node-0",
        "mode": "iptables",
    }
    layout.replace(settings, json.dumps(content, indent=1))
    return [build.binary("kube-proxy"), f"--config={settings}"]
