"""The cluster's own certificate authority, the certificates under it, and the kubeconfigs made of them.

The same authority vouches for the API server and for the simulated outside world, so one file makes a client trust all
of it. Everything here is made once per cluster and found again afterwards.
"""

import base64
import json
import subprocess
from pathlib import Path

from tests.cluster import layout

_DAYS = "3650"
_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]

IDENTITIES = {  # file: subject
    "admin": "/O=system:masters/CN=admin",
    "controller-manager": "/CN=system:kube-controller-manager",
    "scheduler": "/CN=system:kube-scheduler",
    "proxy": "/CN=system:kube-proxy",
}
SERVERS = {  # file: what it answers to
    "apiserver": [
        f"IP:{layout.API_SERVER}",
        "IP:127.0.0.1",
        "IP:10.96.0.1",
        "DNS:localhost",
        *(f"DNS:kubernetes{tail}" for tail in ("", ".default", ".default.svc", ".default.svc.cluster.local")),
    ],
    "registry": [f"IP:{layout.REGISTRY}", "DNS:*.azurecr.io"],
    "hub": [f"IP:{layout.HUB}", "DNS:huggingface.co", "DNS:*.huggingface.co", "DNS:*.hf.co"],
    "azure": [f"IP:{layout.AZURE}", "DNS:management.azure.com", "DNS:login.microsoftonline.com"],
}


def ensure(cluster: layout.Cluster) -> None:
    """The authority, everybody's certificate except the nodes', and the kubeconfigs."""
    authority(cluster.pki, f"kaito-hera {cluster.name}")
    for name, subject in IDENTITIES.items():
        issue(cluster.pki, name, subject, [])
        inner = cluster.inner_kubeconfig if name == "admin" else cluster.pki / f"{name}.kubeconfig"
        kubeconfig(cluster.pki, name, inner, f"https://{layout.API_SERVER}:6443")
    for name, answers_to in SERVERS.items():
        issue(cluster.pki, name, f"/CN={name}", answers_to)
    kubeconfig(cluster.pki, "admin", cluster.kubeconfig, f"https://127.0.0.1:{cluster.api_port}")


def authority(folder: Path, name: str) -> None:
    """The authority of a folder, and the key that signs service account tokens."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    certificate, key = _pair(folder, "ca")
    if not certificate.exists():
        scratch = certificate.with_suffix(".part")
        usage = ["-addext", "keyUsage=critical,keyCertSign,cRLSign"]
        owner = ["-subj", f"/CN={name}", "-days", _DAYS]
        _openssl("req", "-x509", *_KEY, "-keyout", str(key), *owner, *usage, "-out", str(scratch))
        scratch.rename(certificate)
    public = folder / "service-accounts.pub"
    if not public.exists():
        private = folder / "service-accounts.key"
        _openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(private))
        layout.replace(public, _openssl("ec", "-in", str(private), "-pubout"))


def issue(folder: Path, name: str, subject: str, answers_to: list[str]) -> None:
    """NAME.crt and NAME.key for clients and servers; the certificate is written last, so its presence means both."""
    certificate, key = _pair(folder, name)
    if certificate.exists():
        return
    extensions = [
        "basicConstraints=CA:FALSE",
        "extendedKeyUsage=serverAuth,clientAuth",
        "authorityKeyIdentifier=keyid",
        *([f"subjectAltName={','.join(answers_to)}"] if answers_to else []),
    ]
    request = _openssl("req", *_KEY, "-keyout", str(key), "-subj", subject)
    scratch = certificate.with_suffix(".part")
    settings = certificate.with_suffix(".cnf")
    settings.write_text("\n".join(extensions))
    signer, signer_key = _pair(folder, "ca")
    signed = ["-CA", str(signer), "-CAkey", str(signer_key), "-days", _DAYS]
    _openssl("x509", "-req", *signed, "-extfile", str(settings), "-out", str(scratch), stdin=request)
    settings.unlink()
    scratch.rename(certificate)


def kubeconfig(folder: Path, identity: str, path: Path, server: str) -> None:
    """A kubeconfig that needs no other file."""
    certificate, key = _pair(folder, identity)
    trust = _data(folder / "ca.crt")
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "it", "cluster": {"server": server, "certificate-authority-data": trust}}],
        "users": [
            {"name": "me", "user": {"client-certificate-data": _data(certificate), "client-key-data": _data(key)}}
        ],
        "contexts": [{"name": "kaito-hera", "context": {"cluster": "it", "user": "me"}}],
        "current-context": "kaito-hera",
    }
    layout.replace(path, json.dumps(content, indent=1), mode=0o600)  # JSON is YAML too


def _pair(folder: Path, name: str) -> tuple[Path, Path]:
    return folder / f"{name}.crt", folder / f"{name}.key"


def _data(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def _openssl(*arguments: str, stdin: str | None = None) -> str:
    done = subprocess.run(["openssl", *arguments], input=stdin, capture_output=True, text=True, check=False)
    if done.returncode:
        raise layout.ClusterError(f"`openssl {' '.join(arguments)}` failed:\n{done.stderr.strip()}")
    return done.stdout
