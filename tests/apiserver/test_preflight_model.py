"""The model, before a GPU is bought: a real API server, the check Job's own program, the simulated hub and registry."""

import base64
import concurrent.futures
import contextlib
import io
import json
import os
import subprocess
import sys

import pytest

from artifacts.weights import push
from artifacts.weights.config import Model
from kaito_hera import checks, errors, names
from kaito_hera import cluster as clusters
from kaito_hera import run as runs
from kaito_hera.api import Workspace
from kaito_hera.run import Run
from tests import making
from tests.apiserver.conftest import ROOT, until
from tests.artifacts.weights.conftest import auth, files, registry  # noqa: F401
from tests.artifacts.weights.test_hub import COMMIT, GOOD, ID, running  # noqa: F401
from workflows import asks

GATED = "llama-3.1-8b-instruct"


@pytest.fixture
def token(cluster, namespace):
    def create(text=GOOD, key="HF_TOKEN"):
        body = {"metadata": {"name": "mine", "namespace": namespace}, "stringData": {key: text}}
        return cluster.create(clusters.SECRET, body)

    return create


@pytest.fixture
def opened(cluster, apply, settings, namespace):
    """The run of a preflight for a Workspace that serves this preset."""

    def make(name, *, pinned="", changes=None, tune=False, **options):
        preset = {"name": name, **({"presetOptions": options} if options else {})}
        workspace = {**making.inference(), "inference": {"preset": preset}}
        if tune:
            workspace = {**making.tuning(), "tuning": {**making.tuning()["tuning"], "preset": preset}}
        stored = cluster.get(clusters.WORKSPACE, "w", namespace) or apply(workspace)
        chosen = settings.model_copy(update=changes or {})
        return Run(cluster, Workspace.parse(stored), chosen, runs.provider(cluster, chosen), pinned=pinned)

    return make


@pytest.fixture
def looked(cluster, namespace, node, tmp_path):
    """Preflight, whose check Job runs here as its pod would; the Job, and what was learned."""

    def look(run, *, attempt=1):
        with concurrent.futures.ThreadPoolExecutor() as pool:
            following = pool.submit(checks.pass_cluster, run, asks.wanted(run, attempt))
            labels = f"{names.ROLE}=check,{names.ATTEMPT}={attempt}"
            until(lambda: following.done() or cluster.items(clusters.JOB, namespace, labels=labels), what="a check Job")
            job = next(iter(cluster.items(clusters.JOB, namespace, labels=labels)), None)
            if job:
                code, message = _run(cluster, namespace, job, tmp_path)
                node.end(node.start(job), code=code, message=message, reason="Error" if code else "Completed")
            return job, following.result(timeout=20)

    return look


def _run(cluster, namespace, job, folder):
    """The container of the Job's pod, with its annotations and Secrets as files."""
    template = job["spec"]["template"]
    container = template["spec"]["containers"][0]
    paths = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    environment = {**os.environ, **{entry["name"]: entry["value"] for entry in container["env"]}}
    environment |= {"HF_TOKEN_PATH": str(folder / "hub/token"), "TERMINATION_LOG": str(folder / "word")}
    environment |= {"REGISTRY_AUTH": str(folder / "registry/config.json"), "HF_ENDPOINT": os.environ["HF_ENDPOINT"]}
    for volume in template["spec"]["volumes"]:
        (folder / volume["name"]).mkdir(exist_ok=True)
        for item in volume.get("downwardAPI", {}).get("items", []):
            key = item["fieldRef"]["fieldPath"].partition("'")[2].rpartition("'")[0]
            (folder / volume["name"] / item["path"]).write_text(template["metadata"]["annotations"][key])
        found = volume.get("secret") and cluster.get(clusters.SECRET, volume["secret"]["secretName"], namespace)
        for item in volume["secret"]["items"] if found else []:
            content = base64.b64decode(found["data"][item["key"]])
            (folder / volume["name"] / item["path"]).write_bytes(content)
    assert paths["config"] == "/etc/kaito/job"
    command = [sys.executable, "-m", *container["args"][:-1], str(folder / "config/config.json")]
    end = subprocess.run(command, cwd=ROOT, env=environment, check=False)
    return end.returncode, (folder / "word").read_text() if (folder / "word").exists() else ""


def test_a_missing_token_is_told_with_the_command_that_makes_it(opened, namespace):
    with pytest.raises(errors.SecretNotFoundError) as refused:
        asks.wanted(opened(GATED, modelAccessSecret="mine"), 1)
    assert str(refused.value) == (
        f"inference.preset.presetOptions.modelAccessSecret: Secret {namespace}/mine is missing; make it with"
        f" `kubectl -n {namespace} create secret generic mine --from-literal=HF_TOKEN=TOKEN`, it is looked for again by"
        " itself"
    )
    assert refused.value.retryable


@pytest.mark.parametrize(("key", "text"), [("token", GOOD), ("HF_TOKEN", " \n")])
def test_a_secret_without_a_token_is_told(opened, token, key, text):
    token(text, key)
    with pytest.raises(errors.SecretInvalidError, match=rf"has no key HF_TOKEN, it has {key}"):
        asks.wanted(opened(GATED, modelAccessSecret="mine"), 1)


def test_a_hub_that_is_never_asked_needs_an_image(opened):
    offline = {"hf_offline": True}
    with pytest.raises(errors.InvalidWorkspaceError, match=r"presetOptions\.image: is missing.*hfOffline"):
        asks.wanted(opened("phi-4", changes=offline), 1)


def test_a_model_of_the_hub_is_found_with_its_commit_and_held_against_the_size(opened, token, looked, running):  # noqa: F811
    token()
    run = opened(ID, modelAccessSecret="mine")
    job, learned = looked(run)
    assert learned.model.pinned == running.known["models", ID].commit
    (demand,) = asks.demands(run, learned.model.preset)
    assert demand.verb == "serve"
    assert job["spec"]["template"]["spec"]["containers"][0]["args"][0] == "serving"
    assert GOOD not in json.dumps(job), "the token is a file of the Secret's alone"


def test_a_token_that_may_not_read_it_is_a_gated_model(opened, token, looked, running):  # noqa: F811
    token("hf_other")
    with pytest.raises(errors.ReportedTerminalError, match="the token in Secret mine") as refused:
        looked(opened(ID, modelAccessSecret="mine"))
    assert refused.value.reason == "GatedModel"


def test_a_hub_in_trouble_is_asked_again(opened, token, looked, running):  # noqa: F811
    token()
    running.break_at = "/api/"
    with pytest.raises(errors.ReportedTransientError, match="the hub answers 503") as refused:
        looked(opened(ID, modelAccessSecret="mine"))
    assert refused.value.reason == "HubUnavailable"


def test_a_later_attempt_asks_for_the_commit_that_was_found(opened, token, looked, running):  # noqa: F811
    token()
    _, learned = looked(opened(ID, modelAccessSecret="mine", pinned=COMMIT), attempt=2)
    assert learned.model.pinned == COMMIT
    assert not [target for _, target, _ in running.asked if "main" in target]


def test_the_server_gets_commit_and_token_but_no_text_of_it(opened, token):
    token()
    run = opened(ID, modelAccessSecret="mine", pinned=COMMIT)
    found = asks.serving.server(run, "")
    assert json.loads(found.files["serving.json"])["model"]["revision"] == COMMIT
    made = dict(asks.wanted(run, 1).objects)
    spec = made[clusters.DEPLOYMENT]["spec"]["template"]["spec"]
    volume = next(volume for volume in spec["volumes"] if volume["name"] == "hub")
    assert volume["secret"]["secretName"] == "mine"
    assert {"name": "HF_TOKEN_PATH", "value": "/etc/kaito/hub/token"} in spec["containers"][0]["env"]
    assert GOOD not in json.dumps({kind.name: obj for kind, obj in made.items()})


@pytest.mark.parametrize(("said", "known"), [([COMMIT], True), ([""], True), (["{{x}}"], False), (7, False)])
def test_the_commits_of_data_are_read_strictly(opened, cluster, namespace, node, said, known):
    metadata = {"name": "push", "namespace": namespace}
    docker = {"type": "kubernetes.io/dockerconfigjson", "stringData": {".dockerconfigjson": '{"auths": {}}'}}
    cluster.create(clusters.SECRET, {"metadata": metadata, **docker})
    run = opened("phi-3-mini-4k-instruct", tune=True)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        following = pool.submit(checks.pass_cluster, run, asks.wanted(run, 1))
        until(lambda: following.done() or cluster.items(clusters.JOB, namespace), what="a check Job")
        [job] = cluster.items(clusters.JOB, namespace)
        node.end(node.start(job), code=0, message=json.dumps({"adapter": "", "data": said}), reason="Completed")
        refused = pytest.raises(errors.InternalError, match="model or data said what it never does")
        with contextlib.nullcontext() if known else refused:
            assert following.result(timeout=20).commits == tuple(said)


@pytest.fixture
def image(files, auth, registry, cluster, namespace, monkeypatch):  # noqa: F811
    """An image of a model, in a registry with a password that the Secret `pull` has."""
    monkeypatch.setenv("HF_ENDPOINT", "https://127.0.0.1:1")
    text = {".dockerconfigjson": auth.read_text()}
    body = {"metadata": {"name": "pull", "namespace": namespace}, "type": "kubernetes.io/dockerconfigjson"}
    cluster.create(clusters.SECRET, {**body, "stringData": text})
    target = f"{registry.host}/team/tiny:1"
    return push.push(Model(id="acme/tiny", revision="main"), target, folder=files, auth=auth, out=io.StringIO()).image


def test_weights_of_an_image_are_found_by_digest_without_the_hub(opened, looked, image):
    tag = image.partition("@")[0] + ":1"
    run = opened("acme/tiny", image=tag, imagePullSecrets=["pull"], changes={"hf_offline": True})
    _, learned = looked(run)
    assert learned.model.pinned == image.partition("@")[2]
    assert learned.model.preset.architecture == "Phi3ForCausalLM"
    server = asks.serving.expected(run.workspace, run.settings, pinned=learned.model.pinned)
    assert json.loads(server.files["serving.json"])["model"]["image"] == image


def test_an_image_that_may_not_be_pulled_is_told_before_a_gpu_is_bought(opened, looked, image):
    tag = image.partition("@")[0] + ":1"
    with pytest.raises(errors.ReportedTerminalError, match=r"presetOptions\.imagePullSecrets") as refused:
        looked(opened("acme/tiny", image=tag))
    assert refused.value.reason == "ImageForbidden"
