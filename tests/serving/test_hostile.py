"""Hostile bodies to the whole application with a real small engine: never a crash, a 500, or what no document names."""

import collections
import json
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from serving import model
from tests.serving import fakes, tiny
from tests.serving.test_fuzz import PATHS
from tests.serving.test_openai_tools import TEMPLATE

pytestmark = pytest.mark.torch

CONTEXT = 64
CHECKS = (
    "not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance",
    "unsupported_method",
)  # fmt: skip
"""schemathesis' own; the document does not say all that a body is refused for."""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    base = tiny.checkpoint(folder / "model")
    config = fakes.CONFIG.model_copy(update={"context": CONTEXT, "chat_template": TEMPLATE})
    with fakes.server(
        folder, config=config, load=lambda: model.load(config, base, threads=1, scratch=folder)
    ) as client:
        client.eventually(lambda: client.get("/health").status_code == 200, seconds=120)
        yield client


def said(server):
    answer = server.post("/v1/completions", prompt="the fox", max_tokens=30, temperature=0, ignore_eos=True)
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]["text"]


TEXT, KAITO = "/v1/completions", "/chat"
ROWS = [
    pytest.param(TEXT, {"prompt": [7] * 600}, 400, id="longer than all keys and values"),
    pytest.param(KAITO, {"prompt": "the fox " * 600}, 400, id="longer, as text"),
    pytest.param(TEXT, {"prompt": []}, 400, id="no tokens"),
    pytest.param(TEXT, {"prompt": ""}, 400, id="no text"),
    pytest.param(TEXT, {"prompt": [[7], []]}, 400, id="one of two without tokens"),
    pytest.param(TEXT, {"prompt": [100_000]}, 400, id="no token of the vocabulary"),
    pytest.param(TEXT, {"prompt": [7], "logit_bias": {"100000": 1}}, 400, id="nor in a bias"),
    pytest.param(TEXT, {"prompt": "x", "top_k": 100_000}, 200, id="top_k above the vocabulary"),
    pytest.param(KAITO, {"prompt": "x", "generate_kwargs": {"top_k": 10**9}}, 200, id="top_k, KAITO's"),
    pytest.param(TEXT, {"prompt": "x", "temperature": 1, "repetition_penalty": 2}, 200, id="whole numbers"),
    pytest.param(KAITO, {"prompt": "x", "generate_kwargs": {"temperature": 1, "top_p": 1}}, 200, id="and KAITO's"),
    pytest.param(TEXT, {"prompt": "x", "max_tokens": 0}, 400, id="nothing"),
    pytest.param(KAITO, {"prompt": "x", "generate_kwargs": {"max_new_tokens": 0}}, 400, id="nothing, KAITO's"),
]
"""What ends the loop of transformers' own continuous batching, or a request in it."""


@pytest.mark.parametrize(("path", "body", "status"), ROWS)
def test_what_breaks_other_engines_is_answered_or_refused(server, path, body, status):
    before = said(server)
    answer = server.post(path, **body)
    assert answer.status_code == status, answer.text
    assert said(server) == before


def test_streams_that_are_left_free_their_rows(server):
    before = said(server)
    for _ in range(40):  # more than there are rows
        body = {"prompt": "the fox", "stream": True, "ignore_eos": True, "max_tokens": CONTEXT - 10}
        with requests.post(server.url + TEXT, json=body, stream=True, timeout=60) as stream:
            next(stream.iter_lines())
    server.eventually(lambda: server.service.loaded.engine.stats()[:2] == (0, 0))
    assert said(server) == before


def test_no_case_that_schemathesis_makes_of_the_document_breaks_it(server, tmp_path):
    asked = ["run", f"{server.url}/openapi.json", "--checks", ",".join(CHECKS), "--phases", "coverage,fuzzing"]
    asked += ["--max-examples", "10", "--seed", "1", "--continue-on-failure", "--no-color"]
    asked += ["--report", "ndjson", "--report-ndjson-path", "told"]
    before = said(server)
    program = Path(sys.executable).with_name("schemathesis")
    done = subprocess.run([program, *asked], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-10_000:]
    answers = collections.Counter(
        (told["recorder"]["label"], each["response"]["status_code"])
        for line in (tmp_path / "told").read_text().splitlines()
        if (told := json.loads(line).get("ScenarioFinished"))
        for each in told["recorder"]["interactions"].values()
    )
    assert answers.total() >= 500
    for path in PATHS:
        assert answers[f"POST {path}", 200]
        assert answers[f"POST {path}", 400]
    assert said(server) == before
