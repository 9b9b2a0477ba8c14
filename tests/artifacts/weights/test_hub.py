"""The simulated hub, asked without its client and with it: who may read what, and where the token goes."""

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from artifacts.weights import check, errors, hub
from artifacts.weights.config import Model
from tests.artifacts.weights.conftest import WEIGHTS
from tests.cluster.simulators import web
from tests.cluster.simulators.hub import repositories, routes
from tests.simulators.conftest import tls  # noqa: F401
from tests.tuning.conftest import ROOT

ID = "meta-llama/Tiny"
GOOD = "hf_good"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
FETCH = """
import sys, pathlib
from artifacts.weights import hub, config, errors
try:
    model = config.Model(id=sys.argv[1], revision=sys.argv[2])
    print(hub.fetch(model, pathlib.Path(sys.argv[3]), patience=float(sys.argv[4])))
except errors.WeightsError as error:
    sys.exit(f"{error.reason}: {error}")
"""


class Running:
    """A hub of its own, with a second name for the files that it keeps elsewhere."""

    def __init__(self, known, **options):
        self.known, self.options = known, options
        self.asked, self.break_at, self.answer, self.says = [], "", 503, b"busy"
        self.mends = lambda: False
        """Whether what breaks is whole again with the next request."""

    def handle(self, request):
        self.asked.append((request.host, request.target, request.headers.get("Authorization", "")))
        if self.break_at and self.break_at in request.target:
            self.break_at = "" if self.mends() else self.break_at
            return web.Answer(self.answer, self.says)
        return routes.Hub(self.known, cdn=f"localhost:{self.port}", **self.options).handle(request)


@pytest.fixture
def running(files, tmp_path, tls, monkeypatch):  # noqa: F811
    """A hub that gives one model to one token alone; this process is set up to ask it."""
    folder = tmp_path / "content" / "models" / ID
    folder.parent.mkdir(parents=True)
    files.rename(folder)
    made = Running(repositories.load(tmp_path / "content"), gated=frozenset({ID}), tokens=frozenset({GOOD}))
    with contextlib.ExitStack() as stack:
        serving = web.serving(("127.0.0.1", 0), tls.cert, tls.key, handle=made.handle, log=lambda *_: None)
        made.port = stack.enter_context(serving).port
        made.folder = folder
        for name, value in {
            "HF_ENDPOINT": f"https://127.0.0.1:{made.port}",
            "REQUESTS_CA_BUNDLE": str(tls.ca),
            "SSL_CERT_FILE": str(tls.ca),
            "HF_TOKEN_PATH": str(tmp_path / "token"),
        }.items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield made


@pytest.fixture
def token(tmp_path):
    return lambda text: (tmp_path / "token").write_text(f"{text}\n")


def model(name=ID, revision=COMMIT, **options):
    return Model(id=name, revision=revision, **options)


def test_a_token_that_may_read_a_gated_model_is_enough(running, token):
    token(GOOD)
    found = check.check(model(ask=True), None)
    assert (found.pinned, found.preset) == (COMMIT, None)


@pytest.mark.parametrize(
    ("given", "named", "kind", "words"),
    [
        pytest.param("", model(), errors.GatedModel, ["is gated", "accept its terms", "modelAccessSecret"], id="none"),
        pytest.param("hf_x", model(secret="mine"), errors.GatedModel, ["the token in Secret mine"], id="other"),
        pytest.param("", model("acme/none"), errors.ModelNotFound, ["acme/none", "is not on the hub"], id="missing"),
        pytest.param(GOOD, model("acme/none", secret="s"), errors.GatedModel, ["in Secret s (404 "], id="hidden"),
        pytest.param(GOOD, model("acme/x", secret="s", known=False), errors.ModelNotFound, ["Secret s may"], id="any"),
        pytest.param(GOOD, model(revision="v9"), errors.ModelNotFound, ["not this revision"], id="revision"),
    ],
)  # fmt: skip
def test_who_may_not_read_is_told_what_to_do(running, token, given, named, kind, words):
    token(given)
    with pytest.raises(kind) as refused:
        check.check(named, None)
    for word in [*words, "inference.preset"]:
        assert word in str(refused.value)
    assert not refused.value.retryable


def test_any_model_is_found_with_its_commit_its_size_and_its_numbers(running, token):
    token(GOOD)
    found = check.check(model(revision="main", known=False), None)
    assert found.pinned == running.known["models", ID].commit
    assert found.bytes == len(WEIGHTS) + 1000
    assert (found.preset.name, found.preset.architecture, found.preset.shape.layers) == (ID, "Phi3ForCausalLM", 2)


def test_what_the_engine_cannot_run_is_refused_with_the_reason(running, token):
    token(GOOD)
    (running.folder / "config.json").write_text('{"architectures": ["BertModel"], "model_type": "bert"}')
    running.known = repositories.load(running.folder.parents[2])
    with pytest.raises(errors.ModelUnusable, match=r"inference\.preset\.name: meta-llama/Tiny is a BertModel"):
        check.check(model(revision="main", known=False), None)


def test_a_model_without_safetensors_is_refused_before_it_is_fetched(running, token):
    token(GOOD)
    for file in running.folder.glob("model*.safetensors"):
        file.unlink()
    running.known = repositories.load(running.folder.parents[2])
    with pytest.raises(errors.ModelUnusable, match="no weights in safetensors"):
        check.check(model(revision="main", known=False), None)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_trouble_of_the_hub_may_pass(running, token, status):
    token(GOOD)
    running.break_at, running.answer = "/api/", status
    with pytest.raises(errors.HubUnavailable, match=str(status)) as trouble:
        check.check(model(revision="main"), None)
    assert trouble.value.retryable


def test_a_hub_that_is_not_there_may_come_back(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "https://127.0.0.1:1")
    words = r"the hub https://127\.0\.0\.1:1 does not answer"
    with hub.Hub() as asked, pytest.raises(errors.HubUnavailable, match=words):
        asked.may_read(model())


@pytest.mark.parametrize("said", [b"{}x", b'{"a": 1}', b"[1]", b'[{"path": "a"}]', b"<html>"])
def test_a_hub_that_answers_nonsense_may_come_to_itself(running, token, said):
    token(GOOD)
    running.break_at, running.answer, running.says = "/tree/", 200, said
    with pytest.raises(errors.HubUnavailable):
        check.check(model(revision="main", known=False), None)


def test_a_hub_that_is_not_to_be_asked_is_not(running, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "true")
    with hub.Hub() as asked, pytest.raises(errors.ModelNotFound, match="the hub is not asked"):
        asked.config(model())
    assert running.asked == []


def test_the_token_goes_to_the_hub_and_not_where_it_redirects_to(running, token):
    token(GOOD)
    with hub.Hub() as asked:  # large files lie on another host
        asked._get(model(), f"/{ID}/resolve/{COMMIT}/model-00002-of-00002.safetensors")
    by_host = {host.partition(":")[0]: sent for host, _, sent in running.asked}
    assert by_host == {"127.0.0.1": f"Bearer {GOOD}", "localhost": ""}


def fetched(tmp_path, *, patience=0, **environment):
    """In a process of its own: the client reads its environment once."""
    command = [sys.executable, "-c", FETCH, ID, COMMIT, str(tmp_path / "cache"), str(patience)]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    return done.stdout.strip(), (done.stderr.strip().splitlines() or [""])[-1]


def test_the_client_sends_the_mounted_token_to_the_hub_alone(running, token, tmp_path):
    token(GOOD)
    folder, said = fetched(tmp_path)
    assert folder.endswith(COMMIT), said
    assert Path(folder, "model-00001-of-00002.safetensors").stat().st_size == len(WEIGHTS)
    tokens = {(host.partition(":")[0], sent) for host, target, sent in running.asked if ID in target}
    assert tokens == {("127.0.0.1", f"Bearer {GOOD}"), ("localhost", "")}
    again, _ = fetched(tmp_path, HF_HUB_OFFLINE="1", HF_ENDPOINT="https://127.0.0.1:1")
    assert again == folder, "what is there needs no hub"


def test_the_client_without_a_token_is_told_the_same_as_a_check(running, tmp_path):
    _, said = fetched(tmp_path)
    assert said.startswith(f"GatedModel: inference.preset.name: model {ID} at {COMMIT}: is gated (401)")


def test_the_client_tells_trouble_of_the_hub(running, token, tmp_path):
    token(GOOD)
    running.break_at, running.answer = "resolve", 418  # its own patience with 5xx takes half a minute
    _, said = fetched(tmp_path)
    assert said.startswith("HubUnavailable: inference.preset.name: model meta-llama/Tiny")


@pytest.mark.parametrize(("size", "ends"), [(3 << 20, True), (10, False)])
def test_patience_begins_anew_once_bytes_have_come(running, token, tmp_path, size, ends):
    """The first try takes longer than the patience; only where it brought something there is another one."""
    token(GOOD)
    (running.folder / "model-00001-of-00002.safetensors").write_bytes(os.urandom(size))
    running.known = repositories.load(running.folder.parents[2])
    running.break_at, running.answer = "model-00002", 418

    def mends():
        time.sleep(3)
        return True

    running.mends = mends
    folder, said = fetched(tmp_path, patience=2)
    assert bool(folder) == ends, said
    assert said.startswith("HubUnavailable") != ends
