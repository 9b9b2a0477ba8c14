import base64
import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests import terminations
from tests.tuning import servers
from tuning.__main__ import main
from tuning.config import TuningConfig
from tuning.output import volume

ROOT = Path(__file__).parents[2]
LOOPBACK = ("127.0.0.0/8",)
CARD = {
    "preset": "tiny",
    "base_model": {"id": "tiny/phi", "revision": "main"},
    "method": "qlora",
    "loss": 0.5,
    "data": [],
    "versions": {"peft": "0"},
}
"""What an adapter's card has at least."""


@pytest.fixture
def files():
    server = servers.Files()
    yield server
    server.close()


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    """The real registry, with a password."""
    server = servers.Registry(tmp_path_factory.mktemp("registry"), password=True)
    yield server
    server.close()


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A hub with a tiny model that has learned nothing."""
    from tests.tuning import tiny

    root = tmp_path_factory.mktemp("hub") / "tiny"
    tiny.publish(root / "phi", steps=0)
    hub = servers.Hub(root.parent)
    yield hub
    hub.close()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """A certificate for localhost that vouches for itself, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    made = folder / "cert.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-days", "2"]
    subprocess.run([*command, "-out", made[0], "-keyout", made[1]], check=True, capture_output=True)
    return made


@pytest.fixture
def tokens():
    server = servers.TokenRegistry()
    yield server
    server.close()


@pytest.fixture
def auth(tmp_path, registry):
    """A push secret for the real registry."""
    return write_secret(tmp_path / "push.json", {registry.host: entry()})


def write_secret(path, entries):
    path.write_text(json.dumps({"auths": entries}))
    return path


def entry(user=servers.USER, password=servers.PASSWORD):
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


def tuning_config(image, urls, *, intent="an-intent", **more):
    """A config whose data is on loopback and may be; `input` and `output` may say otherwise."""
    return TuningConfig.model_validate(
        {
            "workspace": "team/ws",
            "preset": "tiny-phi",
            "model": {"id": "tiny/phi", "revision": "main"},
            "method": "qlora",
            "training": {},
            "input": {"urls": urls},
            "output": {"image": image},
            "intent": intent,
            "allowed_private_cidrs": LOOPBACK,
            **more,
        }
    )


@pytest.fixture
def config(files):
    """Builds configs; their data is /rows.jsonl of `files` unless urls say otherwise."""

    def build(image, *, urls=None, **more):
        return tuning_config(image, urls or [f"{files.url}/rows.jsonl"], **more)

    return build


@pytest.fixture
def tuning(tmp_path, monkeypatch):
    """`python -m tuning` in this process: what it returns and leaves behind."""
    before = signal.getsignal(signal.SIGTERM)
    message = tmp_path / "termination"
    monkeypatch.setenv("TERMINATION_LOG", str(message))

    def go(config, *options):
        path = tmp_path / "config.json"
        path.write_text(config if isinstance(config, str) else config.model_dump_json())
        verb, *more = options if options[:1] == ("validate",) else ("run", *options)
        code = main([verb, str(path), *more, "--scratch", str(tmp_path / "scratch")])
        return SimpleNamespace(code=code, text=message.read_text(), left=terminations.of_tuning(message.read_text()))

    yield go
    signal.signal(signal.SIGTERM, before)


def start(folder, config, *options, **environment):
    """`python -m tuning` as its own process, with its scratch and termination message in the folder."""
    path = folder / "config.json"
    path.write_text(config.model_dump_json())
    return subprocess.Popen(
        [sys.executable, "-m", "tuning", "run", str(path), *options, "--scratch", str(folder / "scratch")],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "TERMINATION_LOG": str(folder / "termination"), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def as_nobody(tmp_path):
    """A context in which this process has no more rights than the pod's user; needs root to begin with."""
    if os.getuid():
        pytest.skip("only root can become another user and come back")

    @contextlib.contextmanager
    def become():
        for folder in (tmp_path, *tmp_path.parents[:2]):  # of pytest's own, closed to others
            folder.chmod(folder.stat().st_mode | 0o055)
        os.setresuid(65532, 65532, 0)
        try:
            yield
        finally:
            os.setresuid(0, 0, 0)

    return become


@pytest.fixture
def made(tmp_path):
    """Files of an adapter, as a run saves them."""

    def make(weights="weights", *, template="{{ x }}"):
        folder = tmp_path / "saved"
        folder.mkdir(exist_ok=True)
        for name, text in zip(volume.NAMES, ("{}", weights, template), strict=True):
            (folder / name).write_text(text)
        return {name: folder / name for name in volume.NAMES}

    return make


@pytest.fixture
def small(tmp_path):
    """A real file system of one MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)
