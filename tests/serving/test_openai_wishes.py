"""What an OpenAI client can wish of an answer: several of them, log probabilities, forms, adapters at a strength."""

import json

import pytest

from serving.engine.protocol import RequestFailed
from tests.serving import fakes
from tests.serving.test_openai import HELLO, events

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
ADAPTERS = '[{"name": "poet", "image": "r/poet:1", "strength": 0.5}]'
IMAGES = {"r/poet:1": ("sha256:" + "a" * 64, {"chat_template.jinja": fakes.OTHER_TEMPLATE})}
SCHEMA = {
    "type": "object",
    "properties": {"mood": {"enum": ["fine", "bad"]}},
    "required": ["mood"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wishes")
    with fakes.server(folder, images=IMAGES, adapters=ADAPTERS) as client:
        client.eventually(lambda: client.get("/health").status_code == 200)
        yield client


@pytest.fixture
def server(running):
    running.engine.forget()
    return running


def chat(server, **body):
    response = server.post(CHAT, **{"messages": HELLO} | body)
    assert response.status_code == 200, response.text
    return response if body.get("stream") else response.json()


def chunks(response):
    lines, done = events(response)
    assert done
    return [json.loads(line) for line in lines]


def test_several_answers_have_seeds_of_their_own_and_one_prompt(server):
    answer = chat(server, n=3, seed=7, max_tokens=4)
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert {choice["message"]["content"] for choice in answer["choices"]} == {"fine"}
    assert sorted(request.sampling.seed for request in server.engine.seen) == [7, 8, 9]
    prompt = len(server.engine.seen[0].prompt)
    assert (answer["usage"]["prompt_tokens"], answer["usage"]["completion_tokens"]) == (prompt, 12)
    assert server.service.admission.inside == 0


def test_several_answers_come_in_one_stream(server):
    sent = chunks(chat(server, n=2, stream=True, stream_options={"include_usage": True}))
    for index in (0, 1):
        own = [choice for chunk in sent for choice in chunk["choices"] if choice["index"] == index]
        assert own[0]["delta"] == {"role": "assistant", "content": ""}
        assert "".join(choice["delta"].get("content", "") for choice in own) == "fine, thank you"
        assert [choice["finish_reason"] for choice in own if choice["finish_reason"]] == ["stop"]
    assert sent[-1]["usage"]["completion_tokens"] == 32


def test_one_of_several_answers_that_fails_ends_them_all(server):
    server.engine.gate.clear()
    server.engine.fails = RequestFailed("lost it")
    assert server.post(CHAT, messages=HELLO, n=4).status_code == 500
    server.eventually(lambda: server.service.admission.inside == 0)


def test_several_prompts_get_answers_in_their_order(server):
    answer = server.post(COMPLETIONS, prompt=["ab", "cde"], n=2, echo=True, max_tokens=4).json()
    assert [choice["text"] for choice in answer["choices"]] == ["abfine", "abfine", "cdefine", "cdefine"]
    assert answer["usage"]["prompt_tokens"] == 5
    server.post(COMPLETIONS, prompt=[[10, 11], [12]])
    assert sorted(request.prompt for request in server.engine.seen[-2:]) == [(10, 11), (12,)]


def test_log_probabilities_of_a_chat_answer(server):
    answer = chat(server, logprobs=True, top_logprobs=2, max_tokens=2)
    content = answer["choices"][0]["logprobs"]["content"]
    assert [(each["token"], each["logprob"], each["bytes"]) for each in content] == [
        ("f", -0.5, [102]), ("i", -0.5, [105]),
    ]  # fmt: skip
    assert [(each["token"], each["logprob"]) for each in content[0]["top_logprobs"]] == [("f", -0.5), ("!", -1.5)]
    sent = chunks(chat(server, logprobs=True, stream=True))
    streamed = [each for chunk in sent for each in (chunk["choices"][0].get("logprobs") or {}).get("content", [])]
    assert "".join(each["token"] for each in streamed) == "fine, thank you"
    assert chat(server)["choices"][0]["logprobs"] is None
    assert server.engine.seen[-1].logprobs is None


def test_log_probabilities_of_a_completion(server):
    answer = server.post(COMPLETIONS, prompt="p", logprobs=1).json()["choices"][0]
    told = answer["logprobs"]
    assert "".join(told["tokens"]) == answer["text"] == "fine, thank you"
    assert told["text_offset"] == list(range(15))
    assert (told["token_logprobs"][0], told["top_logprobs"][0]) == (-0.5, {"f": -0.5})


def test_log_probabilities_tell_the_bytes_of_half_a_character(server):
    server.engine.answer = "é"
    content = chat(server, logprobs=True)["choices"][0]["logprobs"]["content"]
    assert [each["bytes"] for each in content] == [[0xC3], [0xA9]]


def test_long_texts_are_read_beside_the_others(server):
    long = "x" * 60_000
    assert server.post("/tokenize", prompt=long).json()["count"] == 60_000
    for path, body in ((CHAT, {"messages": [{"role": "user", "content": long}]}), (COMPLETIONS, {"prompt": long})):
        assert server.post(path, **body).json()["error"]["code"] == "context_length_exceeded"
    assert server.post("/chat", prompt=long).status_code == 400


def test_wishes_reach_the_engine(server):
    body = {
        "presence_penalty": 0.5, "frequency_penalty": -1, "logit_bias": {"5": -100}, "min_tokens": 2, "max_tokens": 9,
    }  # fmt: skip
    chat(server, **body)
    request = server.engine.seen[0]
    assert (request.sampling.presence_penalty, request.sampling.frequency_penalty) == (0.5, -1)
    assert (dict(request.sampling.logit_bias), request.min_new_tokens) == ({5: -100}, 2)


def test_what_ends_an_answer(server):
    comma = server.engine.tokenizer.encode(",")[0]
    stopped = chat(server, stop_token_ids=[comma])
    assert (stopped["choices"][0]["message"]["content"], stopped["choices"][0]["finish_reason"]) == ("fine", "stop")
    assert server.engine.seen[0].stop_ids == {0, fakes.END, comma}
    chat(server, ignore_eos=True, max_tokens=20)
    assert server.engine.seen[1].stop_ids == frozenset()


@pytest.mark.parametrize(
    ("body", "content"),
    [
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "m", "schema": SCHEMA}}}, "schema"),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": SCHEMA, "strict": True}}}, "schema"),
        ({"guided_json": SCHEMA}, "schema"),
        ({"guided_json": json.dumps(SCHEMA)}, "schema"),
        ({"structured_outputs": {"json": SCHEMA}}, "schema"),
        ({"structured_outputs": {"choice": ["bad", "fine"]}}, "fine"),
        ({"structured_outputs": {"regex": "[a-f]{4}"}}, "faae"),
    ],
)
def test_an_answer_has_the_form_that_was_asked_for(server, body, content):
    for answer in chat(server, n=2, **body)["choices"]:
        said = answer["message"]["content"]
        if content == "schema":
            assert json.loads(said)["mood"] in ("fine", "bad")
        else:
            assert said == content
        assert answer["finish_reason"] == "stop"


def test_json_objects_are_walked_too(server):
    chat(server, response_format={"type": "json_object"}, max_tokens=3)
    assert server.engine.seen[0].grammar is not None
    chat(server, response_format={"type": "text"})
    assert server.engine.seen[1].grammar is None


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", "it is required where the type"),
        ({"guided_json": "{"}, "guided_json", "it must be a JSON schema"),
        ({"guided_json": {"type": "odd"}}, "guided_json", "this JSON schema cannot be followed: "),
        ({"structured_outputs": {"regex": "("}}, "structured_outputs.regex", "this regular expression cannot be used"),
        ({"structured_outputs": {"grammar": "x"}}, "structured_outputs.grammar", "it is not supported yet"),
        (
            {"guided_json": SCHEMA, "response_format": {"type": "json_object"}},
            "guided_json",
            "response_format and guided_json ask for two; keep one",
        ),
        ({"guided_json": SCHEMA, "ignore_eos": True}, "ignore_eos", "ends by itself"),
        ({"top_logprobs": 2}, "top_logprobs", "it goes with logprobs: true"),
        ({"logit_bias": {"260": 1}}, "logit_bias", "a token of this model is 0 to 259"),
        ({"logit_bias": {"5": 101}}, "logit_bias.5", "it must be at most 100"),
        ({"logit_bias": {f"no {at}": 1 for at in range(1025)}}, "logit_bias", "an object of at most 1024 tokens"),
        ({"stop_token_ids": [999]}, "stop_token_ids", "a token of this model is 0 to 259"),
        ({"min_tokens": 9, "max_tokens": 3}, "min_tokens", "at most 3 new tokens are made"),
        ({"adapter_strength": 0.5}, "adapter_strength", "it goes with the name of an adapter in model"),
        ({"adapter_strength": 1.5, "model": "poet"}, "adapter_strength", "it must be at most 1"),
    ],
)
def test_wishes_that_cannot_be_fulfilled_are_refused(server, body, param, words):
    response = server.post(CHAT, **{"messages": HELLO} | body)
    assert response.status_code == 400, response.text
    assert response.json()["error"]["param"] == param
    assert words in response.json()["error"]["message"]
    assert not server.engine.seen


def test_what_an_engine_does_not_do_is_refused_with_its_name(tmp_path):
    with fakes.server(tmp_path, features=frozenset()) as server:
        for body in ({"logprobs": True}, {"presence_penalty": 1}, {"logit_bias": {"5": 1}}, {"guided_json": SCHEMA}):
            error = server.post(CHAT, **{"messages": HELLO} | body).json()["error"]
            assert error["param"] == next(iter(body))
            assert "this engine (fake) does not support it" in error["message"]


def test_an_adapter_answers_at_the_strength_of_the_request(server):
    chat(server, model="poet", adapter_strength=0.25)
    chat(server, model="poet")
    chat(server, model="poet", adapter_strength=0)
    assert [list(request.adapters.values()) for request in server.engine.seen] == [[0.25], [0.5], [0]]
    prompts = [server.engine.tokenizer.text(request.prompt) for request in server.engine.seen]
    assert prompts[0] == "[user] Hi\n[bot] "
    assert prompts[2] == "<|user|>Hi<|end|><|assistant|>"


def test_tokens_are_told_and_read(server):
    told = server.post("/tokenize", prompt="hé", return_token_strs=True).json()
    assert (told["count"], told["max_model_len"], len(told["token_strs"])) == (3, 1000, 3)
    assert server.post("/detokenize", tokens=told["tokens"]).json() == {"prompt": "hé"}
    turns = server.post("/tokenize", messages=HELLO, model="acme/tiny").json()["tokens"]
    assert server.engine.tokenizer.text(turns) == "<|user|>Hi<|end|><|assistant|>"
    for path, body, param in (
        ("/tokenize", {}, "prompt"),
        ("/tokenize", {"prompt": "p", "add_special_tokens": False}, "add_special_tokens"),
        ("/detokenize", {"tokens": [999]}, "tokens[0]"),
        ("/detokenize", {"tokens": [-1]}, "tokens[0]"),
    ):
        response = server.post(path, **body)
        assert (response.status_code, response.json()["error"]["param"]) == (400, param)
