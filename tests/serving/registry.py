"""A real registry on loopback (Debian's docker-registry), and images pushed to it by hand with skopeo."""

import contextlib
import gzip
import hashlib
import io
import json
import os
import socket
import subprocess
import tarfile
import time

import requests

USER = "reader:s3cret"
HTPASSWD = "reader:$2y$05$rKAa.XN2.Dqki3P4XvgfJ.KOjzomULgqUokR3LORpFk6RI.Unb3Ce\n"
CONFIG = """version: 0.1
log: {{level: error}}
storage: {{filesystem: {{rootdirectory: {root}}}, delete: {{enabled: true}}}}
http: {{addr: "127.0.0.1:{port}"}}
{auth}
"""
AUTH = "auth: {{htpasswd: {{realm: test, path: {file}}}}}"

OCI = "application/vnd.oci.image"
DOCKER = "application/vnd.docker"


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@contextlib.contextmanager
def running(folder, *, private=False):
    """The registry's `host:port`; with `private` it wants the user."""
    port = free_port()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "htpasswd").write_text(HTPASSWD)
    auth = AUTH.format(file=folder / "htpasswd") if private else ""
    (folder / "config.yml").write_text(CONFIG.format(root=folder / "data", port=port, auth=auth))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(["docker-registry", "serve", folder / "config.yml"], stdout=log, stderr=log)
    try:
        ends = time.monotonic() + 20
        while True:
            with contextlib.suppress(requests.ConnectionError):
                requests.get(f"http://127.0.0.1:{port}/v2/", timeout=5)
                break
            assert time.monotonic() < ends
            time.sleep(0.05)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


def plain_http(folder, *hosts):
    """Environment in which skopeo speaks plain HTTP to these hosts."""
    file = folder / "registries.conf"
    file.write_text("".join(f'[[registry]]\nlocation = "{host}"\ninsecure = true\n' for host in hosts))
    return {"CONTAINERS_REGISTRIES_CONF": str(file)}


def layer(files, *, prefix="data/"):
    """One tar layer, gzip as KAITO and docker make it."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        folder = tarfile.TarInfo(prefix.rstrip("/"))
        folder.type, folder.mode = tarfile.DIRTYPE, 0o755
        archive.addfile(folder)
        for name, content in files.items():
            info = tarfile.TarInfo(prefix + name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return raw.getvalue()


def kaito_image(files):
    """As KAITO's pusher makes it: one layer, a config that holds nothing but the digests of the tars."""
    tar = layer(files)
    config = json.dumps({"rootfs": {"diff_ids": [_digest(tar)]}}).encode()
    return _image(f"{OCI}.manifest.v1+json", f"{OCI}.config.v1+json", config, [(f"{OCI}.layer.v1.tar+gzip", tar)])


def docker_image(files, *, prefix="data/"):
    """As `docker build` makes it from busybox and two COPY lines: schema 2, a file in each layer."""
    tars = [layer({"sh": b"#!"}, prefix="bin/")]
    tars += [layer({name: content}, prefix=prefix) for name, content in files.items()]
    diffs = [_digest(tar) for tar in tars]
    config = json.dumps(
        {"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": diffs}}
    ).encode()
    layers = [(f"{DOCKER}.image.rootfs.diff.tar.gzip", tar) for tar in tars]
    return _image(f"{DOCKER}.distribution.manifest.v2+json", f"{DOCKER}.container.image.v1+json", config, layers)


def artifact(files):
    """An OCI artifact, as `oras push` makes it: not an image."""
    tar = layer(files)
    return _image(f"{OCI}.manifest.v1+json", "application/vnd.acme.adapter", b"{}", [(f"{OCI}.layer.v1.tar+gzip", tar)])


def push(folder, image, reference, *, credentials=""):
    """Write the image as skopeo's `dir:` layout and push it; the digest of its manifest."""
    manifest, blobs = image
    target = folder / hashlib.sha256(manifest).hexdigest()[:12]
    target.mkdir(parents=True, exist_ok=True)
    (target / "version").write_text("Directory Transport Version: 1.1\n")
    (target / "manifest.json").write_bytes(manifest)
    for blob in blobs:
        (target / hashlib.sha256(blob).hexdigest()).write_bytes(blob)
    command = ["skopeo", "--insecure-policy", "copy", "--quiet", "--preserve-digests", "--dest-tls-verify=false"]
    command += ["--dest-creds", credentials] if credentials else []
    subprocess.run(
        [*command, f"dir:{target}", f"docker://{reference}"], check=True, env=os.environ | {"TMPDIR": "/tmp"}
    )
    return _digest(manifest)


def push_index(reference, entries):
    """An index over pushed manifests: `entries` are (digest, size, platform)."""
    host, _, name = reference.partition("/")
    name, _, tag = name.partition(":")
    kind = f"{OCI}.index.v1+json"
    manifests = [
        {"mediaType": f"{OCI}.manifest.v1+json", "digest": digest, "size": size, "platform": platform}
        for digest, size, platform in entries
    ]
    body = json.dumps({"schemaVersion": 2, "mediaType": kind, "manifests": manifests}).encode()
    url = f"http://{host}/v2/{name}/manifests/{tag}"
    answer = requests.put(url, data=body, headers={"Content-Type": kind}, timeout=10)
    assert answer.status_code == 201, answer.text


def _image(manifest_type, config_type, config, layers):
    blobs = [(kind, gzip.compress(tar, 6, mtime=0)) for kind, tar in layers]
    described = [{"mediaType": kind, "digest": _digest(blob), "size": len(blob)} for kind, blob in blobs]
    manifest = {
        "schemaVersion": 2,
        "mediaType": manifest_type,
        "config": {"mediaType": config_type, "digest": _digest(config), "size": len(config)},
        "layers": described,
    }
    return json.dumps(manifest).encode(), [config, *(blob for _, blob in blobs)]


def _digest(content):
    return "sha256:" + hashlib.sha256(content).hexdigest()
