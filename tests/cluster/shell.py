"""Run a host's program in the cluster's network: names resolve, certificates are trusted, nothing else changes."""

import os
import shlex
import subprocess

from tests.cluster import build, layout, machines

_TRUST = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "NODE_EXTRA_CA_CERTS")


def enter(cluster: layout.Cluster, command: list[str]) -> int:
    """Run it with our own terminal; returns its exit status."""
    return subprocess.run(wrap(cluster, command), env=environment(cluster), check=False).returncode


def wrap(cluster: layout.Cluster, command: list[str]) -> list[str]:
    """The same as a command line, for callers that want to hold the process themselves."""
    resolv_conf = shlex.quote(str(cluster.state / "resolv.conf"))
    script = f'mount --bind {resolv_conf} "$(realpath /etc/resolv.conf)" && exec "$@"'
    unshare = ["unshare", "--mount", "--propagation", "slave", "--", "sh", "-c", script, "enter"]
    return [*machines.Machine(cluster).inside("net"), *unshare, *command]


def environment(cluster: layout.Cluster) -> dict[str, str]:
    """The caller's environment, with the cluster's trust, kubeconfig and password; proxies do not exist in there."""
    kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    kept.pop("SSL_CERT_DIR", None)  # Go would add it to the one file
    own = dict.fromkeys(_TRUST, str(cluster.ca))
    own["KUBECONFIG"] = str(cluster.inner_kubeconfig)
    own["REGISTRY_AUTH_FILE"] = str(cluster.registry_auth)
    own["PATH"] = f"{build.tools()}:{kept.get('PATH', os.defpath)}"
    return kept | own
