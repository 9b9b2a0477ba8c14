"""Builds the cluster's Go programs from their modules, once per version.

Each folder under go/ is a module of its own, since their dependencies disagree; its go.mod and go.sum pin everything.
What was built lies in the cache under a name that hashes those files and the flags, so an edit there is a new build and
nothing else is. This module knows no cluster and needs no root.
"""

import hashlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.cluster import layout, progress

MODULES = Path(__file__).parent / "go"


@dataclass(frozen=True)
class Program:
    """One program: where its main package is, and which module folder pins it."""

    module: str
    package: str


_KUBERNETES = ("kube-apiserver", "kube-controller-manager", "kube-proxy", "kube-scheduler", "kubectl", "kubelet")
_ARGO = ("argo", "argoexec", "workflow-controller")
_ARGO_MODULE = "github.com/argoproj/argo-workflows/v4"

PROGRAMS: dict[str, Program] = {
    "etcd": Program("etcd", "go.etcd.io/etcd/server/v3"),
    **{name: Program("kubernetes", f"k8s.io/kubernetes/cmd/{name}") for name in _KUBERNETES},
    "gpu-plugin": Program("kubernetes", "./gpu-plugin"),
    "coredns": Program("coredns", "."),
    "kuberay-operator": Program("kuberay", "github.com/ray-project/kuberay/ray-operator"),
    **{name: Program("argo", f"{_ARGO_MODULE}/cmd/{name}") for name in _ARGO},
}


def binary(name: str) -> Path:
    """Where a built program lies, built or not."""
    return _folder(PROGRAMS[name].module) / name


def ensure(*names: str) -> None:
    """Build what the named programs (all, if none is named) lack; a second call finds them and does nothing."""
    wanted = {PROGRAMS[name].module for name in names or PROGRAMS}
    for module in dict.fromkeys(program.module for program in PROGRAMS.values()):
        if module in wanted and not _built(module):
            with layout.lock("build"), progress.part(f"build {module}", "the Go compiler"):
                if not _built(module):  # somebody else may have built it while we waited for the lock
                    _build(module)


def tools() -> Path:
    """A folder for the PATH with the clients a person uses, under a name that stays."""
    folder = layout.cache() / "tools" / "cluster"
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("kubectl", "argo"):
        link = folder / name
        if not link.is_symlink() or link.readlink() != binary(name):
            scratch = folder / f".{name}.{os.getpid()}"
            scratch.symlink_to(binary(name))
            scratch.rename(link)
    return folder


def forget_old() -> None:
    """Remove programs of versions that are no longer asked for."""
    current = {_folder(program.module) for program in PROGRAMS.values()}
    with layout.lock("build"):
        for folder in (layout.cache() / "bin").glob("*"):
            if folder not in current:
                shutil.rmtree(folder)


def module_source(module: str, path: str) -> Path:
    """The folder of a dependency as the module cache holds it: Argo's CRDs and manifests are read from there."""
    listing = _go(module, "list", "-m", "-f", "{{.Dir}}", path).strip()
    if not listing:
        _go(module, "mod", "download", path)
        listing = _go(module, "list", "-m", "-f", "{{.Dir}}", path).strip()
    return Path(listing)


def version(module: str, path: str) -> str:
    """The version of a dependency that a module folder pins, such as v1.34.10."""
    for line in (MODULES / module / "go.mod").read_text().splitlines():
        words = line.removeprefix("require ").split()
        if words[:1] == [path] and len(words) > 1:
            return words[1]
    raise LookupError(f"tests/cluster/go/{module}/go.mod requires no {path}")


def _built(module: str) -> bool:
    return _folder(module).exists()  # it appears whole


def _programs(module: str) -> Iterator[str]:
    return (name for name, program in PROGRAMS.items() if program.module == module)


def _folder(module: str) -> Path:
    digest = hashlib.sha256("\0".join(_flags(module)).encode())
    for source in sorted((MODULES / module).rglob("*")):
        if source.is_file():
            digest.update(source.read_bytes())
    return layout.cache() / "bin" / f"{module}-{digest.hexdigest()[:12]}"


def _flags(module: str) -> list[str]:
    stamps = [f"-X {symbol}={value}" for symbol, value in _symbols(module).items()]
    return ["-trimpath", "-buildvcs=false", "-ldflags", " ".join(["-s", "-w", *stamps])]


def _symbols(module: str) -> dict[str, str]:
    """What the programs say their version is."""
    if module == "argo":
        return {f"{_ARGO_MODULE}.version": version("argo", _ARGO_MODULE)}
    if module != "kubernetes":
        return {}
    release = version("kubernetes", "k8s.io/kubernetes")
    major, minor, _ = release.removeprefix("v").split(".")
    stamps = {"gitVersion": release, "gitMajor": major, "gitMinor": minor, "gitTreeState": "archive"}
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    return {f"{package}.{symbol}": value for package in packages for symbol, value in stamps.items()}


def _build(module: str) -> None:
    """Compile into a folder beside the final one and rename it: a build that was killed leaves nothing that counts."""
    final = _folder(module)
    scratch = final.with_name(f"{final.name}.part")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    source = scratch / "src"
    shutil.copytree(MODULES / module, source)
    if module == "argo":
        _mend_argo(source)
    for name in _programs(module):
        package = PROGRAMS[name].package
        _run(["go", "build", "-mod=mod", *_flags(module), "-o", str(scratch / name), package], source)
    if module == "argo":
        _keep_manifests(source / "argo-workflows/manifests", scratch)
    shutil.rmtree(source)
    shutil.rmtree(final, ignore_errors=True)
    scratch.rename(final)


def _mend_argo(source: Path) -> None:
    """Give the build a copy of Argo with what its module archive lacks: one symbolic link, and the built web pages.

    The pages cannot be built from package registries (one of their dependencies is a git address), so the server shows
    one line in their place.
    """
    mended = source / "argo-workflows"
    _go("argo", "mod", "download", _ARGO_MODULE)  # checked against go.sum, which the copy below no longer is
    unused = shutil.ignore_patterns("docs", "examples", "test")
    shutil.copytree(module_source("argo", _ARGO_MODULE), mended, ignore=unused)
    for folder, _, _ in os.walk(mended):
        Path(folder).chmod(0o755)  # the module cache is read-only
    (mended / "workflow/executor/osspecific/signal_linux.go").symlink_to("signal_darwin.go")
    pages = mended / "ui/dist/app"
    pages.mkdir(parents=True)
    (pages / "index.html").write_text("<p>Argo Server. Its web pages are in the image quay.io/argoproj/argocli.</p>\n")
    _run(["go", "mod", "edit", f"-replace={_ARGO_MODULE}=./argo-workflows"], source)


def _keep_manifests(manifests: Path, target: Path) -> None:
    """Beside the programs; the CRDs, 11 MB of YAML, as JSON too, which kubectl reads in a tenth of the time."""
    shutil.copytree(manifests, target / "manifests")
    crds = [
        yaml.load(path.read_text(), Loader=yaml.CSafeLoader)
        for path in sorted((manifests / "base/crds/full").glob("argoproj*.yaml"))
    ]
    (target / "crds.json").write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": crds}))


def _go(module: str, *arguments: str) -> str:
    command = ["go", *arguments]
    done = subprocess.run(command, cwd=MODULES / module, capture_output=True, text=True, check=False)
    if done.returncode:
        raise layout.ClusterError(f"`{' '.join(command)}` in go/{module} failed:\n{done.stderr.strip()}")
    return done.stdout


def _run(command: list[str], folder: Path) -> None:
    """Run one build at low priority, with its output in a log: a build machine stays usable."""
    log = layout.cache() / "log" / f"build-{time.strftime('%Y%m%d')}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as output:
        environment = os.environ | {"CGO_ENABLED": "0"}
        done = subprocess.run(
            ["nice", "-n", "10", *command], cwd=folder, env=environment, stdout=output, stderr=output, check=False
        )
    if done.returncode:
        tail = "\n".join(log.read_text().splitlines()[-15:])
        raise layout.ClusterError(f"`{' '.join(command)}` failed; the end of {log}:\n{tail}")
