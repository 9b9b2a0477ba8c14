"""Bring the product onto the one-machine cluster, by the same make targets as onto any other.

    python -m tests.e2e.install [NAME]

What a user does by hand is done here: a base image (of Debian packages, as there is no registry to take one from), a
pull Secret, a ConfigMap with the certificate authority. Nothing is done twice.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.cluster import build, layout, node_image, progress

ROOT = Path(__file__).parents[2]
REGISTRY = "kaito.azurecr.io/kaito"
BASE = "localhost/kaito-hera-base:bookworm"
NAMESPACE = "kaito-hera"


def install(cluster: layout.Cluster) -> None:
    """Build, push, unpack the heavy layer once for all nodes, apply."""
    version = _make("version", quiet=True).strip()
    model = _make("model-version", quiet=True).strip()
    named = [f"REGISTRY={REGISTRY}", "BUILDER=buildah", f"BASE={BASE}", f"AUTHFILE={cluster.registry_auth}"]
    with layout.lock("images"):
        _ensure_base(layout.cache())
        with progress.part("images", "buildah; the first time it installs 5.5 GB of Python packages"):
            _make("build-images", *named, f"VERSION={version}")
            _make("build-images", *named, f"VERSION={model}", "ROLES=model")
        with progress.part("push", REGISTRY):
            enter = [sys.executable, "-m", "tests.cluster", "enter", cluster.name, "--", "make", "--no-print-directory"]
            push = [*enter, "push-images", *named, "PUSH_FLAGS=--compression-format=zstd"]
            _run([*push, f"VERSION={version}"])
            _run([*push, f"VERSION={model}", "ROLES=model"])
    node_image.add(cluster, [f"{REGISTRY}/kaito-hera-model:{model}"])
    with progress.part("kaito-hera", "its operator"):
        _ensure_secrets(cluster)
        kubectl = f"{build.binary('kubectl')} --kubeconfig {cluster.kubeconfig}"
        _make(
            "install",
            *named,
            f"VERSION={version}",
            f"KUBECTL={kubectl}",
            "OVERLAY=tests/cluster/overlay",
            "PULL_SECRET=registry",
            "CA_BUNDLE=authorities",
        )


def buildah(cache: Path) -> list[str]:
    """The builder with the store that make gives it."""
    store = ["--root", str(cache / "containers/storage"), "--runroot", str(cache / "containers/run")]
    return ["buildah", "--storage-driver", "overlay", *store]


def _ensure_base(cache: Path) -> None:
    """Debian's smallest system with Python, as an image of our own store."""
    store = buildah(cache)
    if subprocess.run([*store, "inspect", "--type", "image", BASE], capture_output=True, check=False).returncode == 0:
        return
    with progress.part("base image", "debootstrap"), tempfile.TemporaryDirectory(dir=cache) as scratch:
        root = Path(scratch) / "root"
        _run(["debootstrap", "--variant=minbase", "--include=ca-certificates,python3", "bookworm", str(root)])
        for downloaded in ("var/cache/apt/archives", "var/lib/apt/lists"):
            shutil.rmtree(root / downloaded)
            (root / downloaded / "partial").mkdir(parents=True)
        container = _run([*store, "from", "scratch"]).strip()
        _run([*store, "add", "--quiet", container, str(root), "/"])
        _run([*store, "commit", "--quiet", "--rm", "--disable-compression", container, BASE])


def _ensure_secrets(cluster: layout.Cluster) -> None:
    """What `make install` is told to use: a pull Secret and a CA bundle in the operator's namespace."""
    auth = cluster.registry_auth.read_text()
    objects = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "registry", "namespace": NAMESPACE},
            "type": "kubernetes.io/dockerconfigjson",
            "stringData": {".dockerconfigjson": auth},
        },
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "authorities", "namespace": NAMESPACE},
            "data": {"ca.crt": cluster.ca.read_text()},
        },
    ]
    command = [str(build.binary("kubectl")), "--kubeconfig", str(cluster.kubeconfig)]
    manifest = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    _run([*command, "apply", "--server-side", "--force-conflicts", "--field-manager=demo", "-f", "-"], stdin=manifest)


def _make(*arguments: str, quiet: bool = False) -> str:
    return _run(["make", "--no-print-directory", *(["--silent"] if quiet else []), *arguments])


def _run(command: list[str], *, stdin: str | None = None) -> str:
    end = subprocess.run(
        command, cwd=ROOT, input=stdin, capture_output=True, text=True, check=False, env={**os.environ, "MAKEFLAGS": ""}
    )
    if end.returncode:
        tail = "\n".join((end.stdout + end.stderr).strip().splitlines()[-15:])
        raise layout.ClusterError(f"`{' '.join(command)}` ended with {end.returncode}:\n{tail}")
    return end.stdout


if __name__ == "__main__":
    try:
        install(layout.Cluster(sys.argv[1] if len(sys.argv) > 1 else "demo"))
    except (layout.ClusterError, TimeoutError) as error:
        sys.exit(f"error: {error}")
