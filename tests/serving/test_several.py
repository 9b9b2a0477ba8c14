"""What Ray Serve runs where several nodes serve together, on a Ray of one node and with a small model on the CPU.

vLLM's part of it cannot run here: its arguments are held against recorded signatures (tests/serving/vllm).
"""

import json
import subprocess
import sys
import tempfile

import pytest

from kaito_hera import rayservice
from serving.config import Exit
from tests import terminations
from tests.serving import modelhub, tiny
from tests.serving.registry import free_port

pytestmark = pytest.mark.torch

REVISION = "0123456789abcdef0123456789abcdef01234567"
CONFIG = {"workspace": "ns/w", "name": "tiny-phi", "model": {"id": "acme/tiny-phi", "revision": REVISION}}
SERVE = """
import contextlib, json, sys, urllib.request
import ray
from ray import serve
from serving import several

file, port, folder = sys.argv[1:]
ray.init(
    address="local", include_dashboard=False, num_cpus=4, num_gpus=0, object_store_memory=80_000_000,
    log_to_driver=False, _node_ip_address="127.0.0.1", _temp_dir=folder,
)
serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": int(port)})
found = {"answer": None}
with contextlib.suppress(RuntimeError):
    serve.run(several.application({"config": file}), name="default", route_prefix="/")
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/health") as answer:
        found["answer"] = answer.status
application = serve.status().applications["default"]
deployments = {name: {"message": each.message} for name, each in application.deployments.items()}
found["application"] = {"status": application.status, "message": application.message}
print(json.dumps(found | {"deployments": deployments}))
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    folder = tiny.checkpoint(tmp_path_factory.mktemp("several") / "model")
    with modelhub.running({"acme/tiny-phi": (REVISION, folder)}) as (_, url):
        yield url


def python(folder, url, *command):
    own = {"SCRATCH": str(folder / "scratch"), "TERMINATION_LOG": str(folder / "termination"), "HF_ENDPOINT": url}
    environment = {"HOME": str(folder), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin", **own}
    return subprocess.run(
        [sys.executable, *command], env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def written(folder, **config):
    (folder / "serving.json").write_text(json.dumps(CONFIG | config))
    (folder / "adapters.json").write_text("[]")
    return str(folder / "serving.json")


def test_weights_are_fetched_before_ray_starts(tmp_path, hub):
    done = python(tmp_path, hub, "-m", "serving", "--fetch", written(tmp_path))
    assert done.returncode == Exit.DONE, done.stderr
    assert list((tmp_path / "scratch").rglob("*.safetensors"))
    gone = written(tmp_path, model={"id": "acme/nothing", "revision": REVISION})
    assert python(tmp_path, hub, "-m", "serving", "--fetch", gone).returncode not in (Exit.DONE, Exit.UNEXPECTED)
    assert not terminations.of_serving((tmp_path / "termination").read_text()).retryable


@pytest.mark.parametrize(
    ("config", "answer"), [({}, 200), ({"chat_template": "{{ raise_exception('never') }}"}, None)], ids=["good", "bad"]
)
def test_the_replica_is_up_with_its_model_or_says_why_not(tmp_path, hub, config, answer):
    with tempfile.TemporaryDirectory(prefix="ray-") as short:  # a socket's path has a limit
        done = python(tmp_path, hub, "-c", SERVE, written(tmp_path, **config), str(free_port()), short)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["answer"] == answer
    status = {"activeServiceStatus": {"applicationStatuses": {"default": application(told)}}}
    assert bool(rayservice.refused(status)) == (answer is None)
    assert {word["reason"] for word in rayservice.words(status)} == (set() if answer else {"BadConfig"})


def application(told):
    """As KubeRay copies it into a RayService's status."""
    return told["application"] | {"serveDeploymentStatuses": told["deployments"]}
