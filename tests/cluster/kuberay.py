"""KubeRay beside an API server: where its kinds are written down, and how its operator is started."""

from pathlib import Path

from tests.cluster import build

OPERATOR = "kuberay-operator"
_MODULE = "github.com/ray-project/kuberay/ray-operator"


def kinds() -> Path:
    """The folder with its CRDs."""
    return build.module_source("kuberay", _MODULE) / "config/crd/bases"


def command() -> list[str]:
    """The operator alone, built if need be; it finds its API server by KUBECONFIG."""
    build.ensure(OPERATOR)
    nowhere = "127.0.0.1:0"
    addresses = [f"--metrics-addr={nowhere}", f"--health-probe-bind-address={nowhere}"]
    return [str(build.binary(OPERATOR)), *addresses, "--enable-leader-election=false"]
