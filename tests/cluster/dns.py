"""CoreDNS: the cluster's services, the nodes, and the simulated outside world by its real names. Nothing else exists.

It is a daemon beside the control plane, not a pod: containerd asks it too, before there is a pod. Pods reach it as the
Service kube-dns.
"""

from tests.cluster import build, kubectl, layout, machines

OUTSIDE = {
    layout.HUB: ("huggingface.co",),
    layout.AZURE: ("management.azure.com", "login.microsoftonline.com"),
}

# Names of any registry are one machine; what no block above answers does not exist, and says so at once.
_COREFILE = """
. {{
    bind {dns}
    errors
    ready {dns}:8181
    hosts {hosts} {{
        reload 1s
        fallthrough
    }}
    kubernetes cluster.local in-addr.arpa ip6.arpa {{
        kubeconfig {kubeconfig}
        pods insecure
        fallthrough in-addr.arpa ip6.arpa
    }}
    template IN A azurecr.io {{
        answer "{{{{ .Name }}}} 60 IN A {registry}"
    }}
    template IN ANY azurecr.io {{
        rcode NOERROR
    }}
    template ANY ANY . {{
        rcode NXDOMAIN
    }}
}}
"""


def prepare(cluster: layout.Cluster) -> None:
    """The files that machines and CoreDNS read."""
    layout.replace(cluster.state / "resolv.conf", f"nameserver {layout.DNS}\noptions timeout:2 attempts:2\n")
    settings = _COREFILE.format(
        dns=layout.DNS, hosts=cluster.hosts, kubeconfig=cluster.inner_kubeconfig, registry=layout.REGISTRY
    )
    layout.replace(cluster.state / "Corefile", settings)
    if not cluster.hosts.exists():
        write_hosts(cluster, {})


def write_hosts(cluster: layout.Cluster, nodes: dict[str, str]) -> None:
    """`nodes` is name: address. CoreDNS looks at the file's time and size every second."""
    lines = [f"{address} {' '.join(names)}" for address, names in OUTSIDE.items()]
    lines += [f"{address} {name}" for name, address in sorted(nodes.items())]
    layout.replace(cluster.hosts, "\n".join(lines) + "\n")


def start(cluster: layout.Cluster) -> None:
    command = [build.binary("coredns"), "-conf", cluster.state / "Corefile"]
    machines.Machine(cluster).ensure_daemon("coredns", command)


def publish(cluster: layout.Cluster) -> None:
    """The Service that pods ask; its one endpoint is no pod, so it is written down here."""
    about = {"name": "kube-dns", "namespace": "kube-system"}
    ports = [{"name": f"dns-{protocol.lower()}", "port": 53, "protocol": protocol} for protocol in ("UDP", "TCP")]
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": about,
        "spec": {"clusterIP": layout.CLUSTER_DNS, "ports": ports},
    }
    endpoints = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": about | {"labels": {"kubernetes.io/service-name": "kube-dns"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [layout.DNS]}],
        "ports": ports,
    }
    kubectl.apply(cluster, service, endpoints)
