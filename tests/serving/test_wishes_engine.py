"""OpenAI's wishes with a real model behind them, on whichever engine serves it."""

import gc
import json

import jsonschema
import pytest

from serving import model
from tests.serving import fakes, tiny

pytestmark = pytest.mark.torch

CHAT = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "the fox"}]
SCHEMA = {
    "type": "object",
    "properties": {"mood": {"enum": ["fine", "bad"]}, "count": {"type": "integer", "maximum": 99}},
    "required": ["mood", "count"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wishes")
    base = tiny.checkpoint(folder / "model")
    with fakes.server(folder, load=lambda: model.load(fakes.CONFIG, base, threads=1, scratch=folder)) as client:
        client.eventually(lambda: client.get("/health").status_code == 200, seconds=120)
        yield client


def choices(server, **body):
    response = server.post(CHAT, **{"messages": HELLO, "max_tokens": 24} | body)
    assert response.status_code == 200, response.text
    return response.json()["choices"]


def test_answers_follow_a_schema_whatever_the_model_would_say(server):
    wish = {"response_format": {"type": "json_schema", "json_schema": {"schema": SCHEMA}}, "n": 4, "max_tokens": 300}
    for choice in choices(server, seed=1, **wish):
        assert choice["finish_reason"] == "stop"
        jsonschema.validate(json.loads(choice["message"]["content"]), SCHEMA)


def test_log_probabilities_are_the_models_and_the_best_is_first(server):
    [choice] = choices(server, logprobs=True, top_logprobs=3, temperature=0, ignore_eos=True, max_tokens=8)
    told = choice["logprobs"]["content"]
    assert len(told) == 8
    for each in told:
        values = [top["logprob"] for top in each["top_logprobs"]]
        assert values == sorted(values, reverse=True)
        assert each["logprob"] == values[0] <= 0


def test_a_seed_gives_the_same_answers_again_and_each_its_own(server):
    first, second = (choices(server, seed=5, n=3, ignore_eos=True) for _ in range(2))
    said = [choice["message"]["content"] for choice in first]
    assert said == [choice["message"]["content"] for choice in second]
    assert len(set(said)) == 3


def test_what_is_weighed_down_is_not_said(server):
    [plain] = choices(server, logprobs=True, temperature=0, ignore_eos=True)
    said = {each["token"] for each in plain["logprobs"]["content"]}
    backend = server.service.loaded.chat.tokenizer.backend
    ids = {token: backend.decode([token], skip_special_tokens=False) for token in range(backend.get_vocab_size())}
    bias = {str(token): -100 for token, text in ids.items() if text in said}
    [other] = choices(server, logprobs=True, temperature=0, ignore_eos=True, logit_bias=bias)
    assert said.isdisjoint(each["token"] for each in other["logprobs"]["content"])


def test_no_collection_of_garbage_looks_at_what_was_loaded(server):
    """Half a million objects: that takes half a second, in which nobody is answered."""
    engine = server.service.loaded.engine
    assert not any(each is engine for each in gc.get_objects())
