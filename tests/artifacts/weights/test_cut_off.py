"""Nobody waits for what is not wanted any more: a model's other files, when one fails or the process shall end."""

import contextlib
import hashlib
import io
import json
import signal
import subprocess
import sys
import threading

import pytest

from artifacts import upload
from artifacts.weights import errors, image, push
from artifacts.weights.config import Model
from tests.tuning import servers
from tests.tuning.conftest import ROOT


class Stuck(servers.Server):
    """A registry that takes one upload or gives one blob for ever, and refuses the others once it does so."""

    def __init__(self, stuck):
        super().__init__()
        self.stuck, self.manifest = stuck, b""
        self.begun, self.gone = threading.Event(), threading.Event()

    def answer(self, request):
        if request.path.endswith("/manifests/1"):
            self.reply(request, 200, self.manifest)
        elif request.command == "HEAD":
            self.reply(request, 404)
        elif request.command == "POST":
            self.reply(request, 202, b"", {"Location": request.path})
        elif request.path.endswith(self.stuck):
            self.begun.set()
            with contextlib.suppress(OSError):
                request.connection.recv(1)
            self.gone.set()
        else:
            self.begun.wait()
            self.refuse(request)

    def refuse(self, request):
        self.reply(request, 403, b'{"errors": [{"code": "DENIED", "message": "quota"}]}')

    def times(self):
        return sum(path.endswith(self.stuck) and method in {"GET", "PUT"} for method, path, _ in self.asked)


def layer_of(content):
    return {"digest": f"sha256:{hashlib.sha256(content).hexdigest()}", "size": len(content)}


@pytest.mark.parametrize("stuck", [0, 1])
def test_a_layer_that_fails_ends_those_beside_it(tmp_path, stuck):
    blobs = [layer_of(b"first"), layer_of(b"second")]
    with contextlib.closing(Stuck(blobs[stuck]["digest"])) as server:
        server.manifest = json.dumps({"layers": blobs}).encode()
        model = Model(id="acme/tiny", revision="main", image=f"{server.host}/a:1")
        with pytest.raises(errors.ImageForbidden, match="DENIED: quota"):
            image.fetch(model, tmp_path, tmp_path / "none")
        server.gone.wait()
        assert server.times() == 1, "what is cut off is not tried again"


def tar_digest(file):
    """Of the layer that `push` makes of a file."""
    content = file.read_bytes()
    made = b"".join(upload.single_file(f"models/{file.name}", len(content), iter([content])))
    return layer_of(made)["digest"]


def test_a_file_that_is_refused_ends_the_uploads_beside_it(files, tmp_path):
    with contextlib.closing(Stuck(tar_digest(files / "config.json"))) as server:
        with pytest.raises(errors.ImageForbidden, match=r"IMAGE: .*DENIED: quota"):
            push.push(
                Model(id="acme/tiny", revision="main"),
                f"{server.host}/a:1",
                folder=files,
                auth=tmp_path / "none",
                out=io.StringIO(),
            )
        server.gone.wait()
        assert server.times() == 1


class Patient(Stuck):
    """Takes what is not stuck."""

    def refuse(self, request):
        self.reply(request, 201)


def test_an_interrupted_push_ends(files, tmp_path):
    with contextlib.closing(Patient(tar_digest(files / "config.json"))) as server:
        command = [sys.executable, "-m", "workflows", "model", "push", "acme/tiny", f"{server.host}/a:1"]
        pushing = subprocess.Popen(
            ["env", "--default-signal=INT", *command, "--folder", str(files)],  # jobs in the background ignore it
            cwd=ROOT,
            env={"PATH": "/usr/bin", "HOME": str(tmp_path)},
            stderr=subprocess.PIPE,
        )
        server.begun.wait()
        pushing.send_signal(signal.SIGINT)
        told = pushing.communicate()[1]
        assert pushing.returncode != 0
        assert b"KeyboardInterrupt" in told
        server.gone.wait()
        assert server.times() == 1
