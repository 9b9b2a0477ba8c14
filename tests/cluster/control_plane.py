"""etcd and Kubernetes' own servers, as daemons of the cluster's first machine."""

import json

from tests.cluster import build, kubectl, layout, machines, progress

_GRACE = "30s"  # how long a silent node counts as alive; short, so that tests of lost nodes are

_THRIFTY = {"GOGC": "50"}  # Argo's full CRDs would bring the API server to 2 GiB


def start(cluster: layout.Cluster) -> None:
    """Start what does not run; `await_ready` says when it answers."""
    world = machines.Machine(cluster)
    world.ensure_daemon("etcd", etcd(cluster))
    world.ensure_daemon("apiserver", apiserver(cluster), env=_THRIFTY)
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


def etcd(cluster: layout.Cluster) -> list[object]:
    """Without fsync: a machine that loses power loses this cluster anyway."""
    client, peer = "http://127.0.0.1:2379", "http://127.0.0.1:2380"
    return [
        build.binary("etcd"),
        f"--data-dir={cluster.state / 'etcd'}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        "--unsafe-no-fsync",
        "--log-level=warn",
    ]


def apiserver(cluster: layout.Cluster) -> list[object]:
    pki = cluster.pki
    return [
        build.binary("kube-apiserver"),
        "--etcd-servers=http://127.0.0.1:2379",
        f"--bind-address={layout.API_SERVER}",
        f"--advertise-address={layout.API_SERVER}",
        "--secure-port=6443",
        f"--service-cluster-ip-range={layout.SERVICES}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        f"--client-ca-file={cluster.ca}",
        f"--tls-cert-file={pki / 'apiserver.crt'}",
        f"--tls-private-key-file={pki / 'apiserver.key'}",
        f"--kubelet-client-certificate={pki / 'admin.crt'}",
        f"--kubelet-client-key={pki / 'admin.key'}",
        "--kubelet-preferred-address-types=InternalIP",  # `kubectl logs` goes by address: node names resolve late
        f"--service-account-key-file={pki / 'service-accounts.pub'}",
        f"--service-account-signing-key-file={pki / 'service-accounts.key'}",
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
