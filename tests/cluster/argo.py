"""Argo Workflows on the cluster: its full CRDs, and controller and server as ordinary Deployments in namespace argo.

They run from images that stand in for the published ones (see images.py), so killing their pods is a real test.
"""

import hashlib
import shutil
from pathlib import Path

from tests.cluster import build, images, kubectl, layout, progress

_OVERLAY = Path(__file__).parent / "argo_settings"
_DEPLOYMENTS = ("workflow-controller", "argo-server")


def install(cluster: layout.Cluster) -> None:
    """Apply it unless this very version is there."""
    version = _version()
    namespace = kubectl.read(cluster, "namespace", "argo")
    if namespace and namespace["metadata"].get("annotations", {}).get("kaito-hera/applied") == version:
        return
    folder = cluster.state / "argo"
    layout.remove(folder)
    shutil.copytree(_OVERLAY, folder)
    for path in folder.glob("*.yaml"):
        text = path.read_text().replace("RELEASE", images.release()).replace("ARGO_SERVER", layout.ARGO_SERVER)
        path.write_text(text)
    built = build.binary("argo").parent
    shutil.copytree(built / "manifests", folder / "manifests")
    kubectl.run(cluster, "apply", *kubectl.SERVER_SIDE, "--filename", str(built / "crds.json"))
    kubectl.run(cluster, "apply", *kubectl.SERVER_SIDE, "--kustomize", str(folder))
    kubectl.run(cluster, "annotate", "namespace", "argo", f"kaito-hera/applied={version}", "--overwrite")


def await_ready(cluster: layout.Cluster) -> None:
    """Both Deployments are available."""
    progress.until(
        lambda: all(_available(cluster, name) for name in _DEPLOYMENTS),
        what=f"available Deployments {' and '.join(_DEPLOYMENTS)} in namespace argo",
        seconds=180,
        hint="`kubectl --namespace argo describe pods` says more",
        pause=0.3,
    )


def _available(cluster: layout.Cluster, name: str) -> bool:
    deployment = kubectl.read(cluster, "deployment", name, "--namespace=argo")
    return bool(deployment and deployment.get("status", {}).get("availableReplicas"))


def _version() -> str:
    sources = [*sorted(_OVERLAY.glob("*.yaml")), build.MODULES / "argo" / "go.sum"]
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]
