"""Every reason of the table in tuning/errors.py ends a command: with its exit code, and in a termination message."""

import json
import re
from pathlib import Path

import pytest

from tests import terminations
from tests.serving import registry as images
from tests.tuning import servers
from tests.tuning.conftest import LOOPBACK, entry, write_secret
from tests.tuning.test_errors import kinds
from tuning.__main__ import main
from tuning.config import RETRYABLE, Exit

ELSEWHERE = {
    "LossDiverged": "test_run.py",
    "OutOfMemory": "training/test_loop.py",
    "UnsupportedGPU": "training/test_model.py",
    "Evicted": "test_run_ends.py",
    "ModelUnusable": "test_run.py",
    "NodeTrouble": "test_run_ends.py",
    "TuningError": "test_run_ends.py",
}
"""Those that training alone meets, or the node: the test that meets them."""
PAGE = b"<!DOCTYPE html><title>Sign in</title>"
HUGE = {
    "schemaVersion": 2,
    "mediaType": "application/vnd.oci.image.manifest.v1+json",
    "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": f"sha256:{'0' * 64}", "size": 2},
    "layers": [
        {
            "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
            "digest": f"sha256:{'1' * 64}",
            "size": 1 << 40,
        }
    ],
}


class Place:
    """Where the commands of the table work."""

    def __init__(self, files, registry, tokens, folder):
        self.files, self.host, self.folder, self.tokens = files, registry.host, folder, tokens
        self.config = {
            "workspace": "team/ws",
            "preset": "tiny-phi",
            "model": {"id": "tiny/phi", "revision": "main"},
            "method": "qlora",
            "training": {},
            "input": {"urls": [f"{files.url}/rows.jsonl"]},
            "output": {"image": f"{registry.host}/team/a:1"},
            "intent": "an-intent",
            "allowed_private_cidrs": LOOPBACK,
        }
        self.auth = write_secret(folder / "push.json", {registry.host: entry(), tokens.host: entry()})

    def validate(self, *options, **changes):
        path = self.folder / "config.json"
        path.write_text(json.dumps(self.config | changes))
        return ["validate", str(path), "--push-auth", str(self.auth), *map(str, options)]

    def url(self, path):
        return self.validate(input={"urls": [f"{self.files.url}{path}"]})

    def web_page(self):
        self.files.files["/page"] = PAGE
        return self.url("/page")

    def no_model(self):
        model = {"id": "tiny/none", "revision": "main", "ask": True}
        return self.validate(model=model)

    def wrong_password(self):
        self.auth = write_secret(self.folder / "wrong.json", {self.host: entry(password="wrong")})
        return self.validate()

    def no_right(self):
        self.tokens.uploads = (403, {"errors": [{"code": "DENIED"}]})
        return self.validate(output={"image": f"{self.tokens.host}/a:1"})

    def dead(self):
        return self.validate(output={"image": f"127.0.0.1:{servers.free_port()}/a:1"})

    def huge(self):
        self.files.files |= {"/v2/": b"{}", "/v2/team/huge/manifests/1": json.dumps(HUGE).encode()}
        return ["pull", f"{self.files.host}/team/huge:1", str(self.folder / "pulled")]

    def no_volume(self):
        results = self.folder / "results"
        results.mkdir()
        (results / ".checkpoints-an-intent").write_text("somebody's")
        return self.validate("--results", results, output={"volume": "team/out"}, checkpoint_seconds=300)


ENDINGS = {
    "ConfigInvalid": (Exit.BAD_CONFIG, lambda at: at.validate(output={"image": "reg.io/Upper:1"})),
    "DataInvalid": (Exit.BAD_DATA, Place.web_page),
    "DataRefused": (Exit.BAD_DATA, lambda at: at.validate(input={"urls": ["http://169.254.169.254/x"]})),
    "DataNotFound": (Exit.BAD_DATA, lambda at: at.url("/none")),
    "DataTooLarge": (Exit.BAD_DATA, Place.huge),
    "ModelNotFound": (Exit.BAD_MODEL, Place.no_model),
    "PushUnauthorized": (Exit.REGISTRY_AUTH, Place.wrong_password),
    "PullUnauthorized": (Exit.REGISTRY_AUTH, lambda at: ["pull", f"{at.host}/team/a:1", str(at.folder / "pulled")]),
    "PushForbidden": (Exit.REGISTRY_REFUSED, Place.no_right),
    "VolumeRefused": (Exit.REGISTRY_REFUSED, Place.no_volume),
    "DataUnreachable": (
        Exit.NETWORK,
        lambda at: at.validate(input={"urls": [f"http://127.0.0.1:{servers.free_port()}/a"]}),
    ),
    "RegistryUnavailable": (Exit.REGISTRY_UNAVAILABLE, Place.dead),
}


@pytest.fixture
def place(files, registry, tokens, tmp_path, monkeypatch):
    (tmp_path / "hub").mkdir()
    hub = servers.Hub(tmp_path / "hub")
    files.files["/rows.jsonl"] = b'{"text": "x"}\n'
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TERMINATION_LOG", str(tmp_path / "termination"))
    for name, value in images.plain_http(tmp_path, registry.host, files.host).items():
        monkeypatch.setenv(name, value)
    yield Place(files, registry, tokens, tmp_path)
    hub.close()


@pytest.mark.parametrize("reason", ENDINGS)
def test_a_command_ends_so(reason, place, tmp_path):
    code, command = ENDINGS[reason]
    assert main(command(place)) == code
    text = (tmp_path / "termination").read_text()
    left = terminations.of_tuning(text)
    assert (left.reason, left.retryable) == (reason, code in RETRYABLE)
    assert len(text) < 4096


def test_no_reason_is_left_out():
    named = {"ModelFiles" if name == "ModelNotFound" else name for name in ENDINGS} | set(ELSEWHERE)
    assert named == {kind.__name__ for kind in kinds()}
    for name, file in ELSEWHERE.items():
        text = (Path(__file__).parent / file).read_text()
        said = "Unexpected" if name == "TuningError" else name
        assert re.search(rf"\b{said}\b", text), f"{file} does not meet {name}"
