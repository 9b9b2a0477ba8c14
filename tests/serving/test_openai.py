"""The OpenAI API in its minimal form."""

import json

import pytest
import requests

from serving.engine.protocol import RequestFailed
from tests.serving import fakes

HELLO = [{"role": "user", "content": "Hi"}]


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with fakes.server(tmp_path_factory.mktemp("openai")) as client:
        yield client


@pytest.fixture
def openai(running):
    running.engine.forget()
    return running


def complete(client, **body):
    return client.post("/v1/chat/completions", **{"messages": HELLO} | body)


def events(response):
    lines = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    return lines[:-1] if lines[-1] == "[DONE]" else lines, lines[-1] == "[DONE]"


def test_chat_completion(openai):
    answer = complete(openai, model="tiny").json()
    assert answer["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "fine, thank you"},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ]
    request = openai.engine.seen[0]
    assert answer["usage"] == {
        "prompt_tokens": len(request.prompt), "completion_tokens": 16, "total_tokens": len(request.prompt) + 16,
    }  # fmt: skip
    assert (answer["object"], answer["model"]) == ("chat.completion", "tiny")
    assert request.max_new_tokens == 1000 - len(request.prompt)
    assert (request.sampling.do_sample, request.sampling.top_k) == (True, 0)


def test_content_parts_are_joined(openai):
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    complete(openai, messages=[{"role": "user", "content": parts}])
    assert openai.engine.tokenizer.text(openai.engine.seen[0].prompt) == "<|user|>ab<|end|><|assistant|>"


def test_fields_that_are_honoured(openai):
    body = {"temperature": 0, "max_tokens": 4, "top_k": 7, "top_p": 0.5, "seed": 3, "stop": "x", "user": "me", "n": 1}
    answer = complete(openai, **body).json()
    request = openai.engine.seen[0]
    assert (request.sampling.do_sample, request.sampling.top_k, request.sampling.top_p) == (False, 7, 0.5)
    assert (request.sampling.seed, request.max_new_tokens) == (3, 4)
    assert (answer["choices"][0]["message"]["content"], answer["choices"][0]["finish_reason"]) == ("fine", "length")


def test_stop_strings_end_the_answer_before_them(openai):
    choice = complete(openai, stop=[", tha", "zzz"]).json()["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("fine", "stop")
    openai.eventually(lambda: openai.engine.cancelled == 1)


def test_stream_has_role_pieces_finish_and_usage(openai):
    response = complete(openai, stream=True, stream_options={"include_usage": True})
    assert response.headers["content-type"].startswith("text/event-stream")
    lines, done = events(response)
    chunks = [json.loads(line) for line in lines]
    assert done
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks[:-1]) == "fine, thank you"
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"
    assert (chunks[-1]["choices"], chunks[-1]["usage"]["completion_tokens"]) == ([], 16)
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in chunks}) == 1


def test_stream_holds_back_what_may_become_a_stop_string(openai):
    lines, _ = events(complete(openai, stream=True, stop=[", thanks"]))
    text = "".join(json.loads(line)["choices"][0]["delta"].get("content", "") for line in lines)
    assert text == "fine, thank you"


@pytest.mark.parametrize(
    ("said", "content"),
    [(" The bakery opens at five.", "The bakery opens at five."), ("\n \nYes,  no", "Yes,  no"), ("  ", "")],
)
def test_chat_answers_begin_without_white_space_and_count_it(openai, said, content):
    openai.engine.answer = said
    whole = complete(openai).json()
    assert whole["choices"][0]["message"]["content"] == content
    assert whole["usage"]["completion_tokens"] == len(said) + 1
    lines, _ = events(complete(openai, stream=True, stream_options={"include_usage": True}))
    *chunks, last = [json.loads(line) for line in lines]
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == content
    assert (chunks[-1]["choices"][0]["finish_reason"], last["usage"]) == ("stop", whole["usage"])


def test_completions_keep_their_white_space(openai):
    openai.engine.answer = " upon"
    assert openai.post("/v1/completions", prompt="once").json()["choices"][0]["text"] == " upon"
    lines, _ = events(openai.post("/v1/completions", prompt="once", stream=True))
    assert "".join(json.loads(line)["choices"][0]["text"] for line in lines) == " upon"


def test_completions_read_the_prompt_as_it_is(openai):
    answer = openai.post("/v1/completions", prompt="once", echo=True, max_tokens=4).json()
    assert openai.engine.tokenizer.text(openai.engine.seen[0].prompt) == "once"
    assert (answer["object"], answer["choices"][0]["text"]) == ("text_completion", "oncefine")
    tokens = openai.post("/v1/completions", prompt=[10, 11, 12], max_tokens=4)
    assert (tokens.json()["choices"][0]["text"], openai.engine.seen[1].prompt) == ("fine", (10, 11, 12))
    lines, done = events(openai.post("/v1/completions", prompt=["once"], stream=True, echo=True))
    assert done
    assert "".join(json.loads(line)["choices"][0]["text"] for line in lines) == "oncefine, thank you"


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        pytest.param({"model": "other"}, 404, "model 'other' is not served; there are tiny, acme/tiny", id="model"),
        pytest.param({"best_of": 2}, 400, "this API has no such field", id="best of"),
        pytest.param({"tools": [{"type": "function"}]}, 400, "tools[0].function is missing", id="tools"),
        pytest.param({"presence_penalty": 2.5}, 400, "presence_penalty is 2.5: it must be at most 2", id="penalty"),
        pytest.param({"temprature": 1}, 400, "this API has no such field; is it temperature?", id="typo"),
        pytest.param({"temperature": 3}, 400, "temperature is 3: it must be at most 2", id="range"),
        pytest.param({"messages": []}, 400, "messages", id="empty"),
        pytest.param({"max_tokens": 5000}, 400, "this model's maximum context length is 1000 tokens", id="too many"),
        pytest.param({"stop": list("abcde")}, 400, 'stop is ["a", "b", "c", "d", "e"]: at most 4', id="stops"),
        pytest.param({"min_p": 0.1}, 400, "min_p is 0.1: this engine (fake) does not support it", id="feature"),
    ],
)
def test_refusals_have_openais_shape(openai, body, status, words):
    response = complete(openai, **body)
    assert response.status_code == status
    assert words in response.json()["error"]["message"]
    assert response.json()["error"]["type"] == "invalid_request_error"
    assert not openai.engine.seen


@pytest.mark.parametrize(
    "body",
    ['{"messages": [{"role": "user", "content": "x"}], "temperature": NaN}', '{"messages": 3}', "[]", "", '{"a": '],
)
def test_odd_bodies_are_400_in_openais_shape(openai, body):
    headers = {"Content-Type": "application/json"}
    response = requests.post(openai.url + "/v1/chat/completions", data=body, headers=headers, timeout=60)
    assert response.status_code == 400
    assert response.json()["error"]["message"]


def test_a_body_that_is_no_json_is_told_apart_from_one_that_is_not_called_so(openai):
    path = openai.url + "/v1/chat/completions"
    refused = requests.post(path, data=b"prompt=x", headers={"Content-Type": "application/json"}, timeout=60)
    assert refused.status_code == 400
    assert refused.json()["error"]["message"] == "the body is no JSON: Expecting value at character 0"
    unnamed = requests.post(path, data=json.dumps({"messages": HELLO}).encode(), timeout=60)
    assert unnamed.status_code == 415
    assert "Content-Type: application/json" in unnamed.json()["error"]["message"]
    assert requests.post(openai.url + "/v1/nothing", data=b"x", timeout=60).status_code == 404
    assert requests.post(openai.url + "/health", data=b"x", timeout=60).status_code == 405


def test_unknown_path_and_method_have_openais_shape(openai):
    for path, status in (("/v1/nothing", 404), ("/v1/completions", 405)):
        response = openai.get(path)
        told = response.json()["error"]["message"]
        assert (response.status_code, told.partition(";")[0]) == (status, f"GET {path} is not served")
        served = [each.split() for each in told.partition(" there are ")[2].split(", ")]
        described = openai.get("/openapi.json").json()["paths"].items()
        known = [[method.upper(), name.replace("{name}", "NAME")] for name, methods in described for method in methods]
        assert sorted(served) == sorted(each for each in known if each[1].startswith("/v1/"))


def test_model_not_found_has_its_code(openai):
    error = complete(openai, model="other").json()["error"]
    assert (error["code"], error["param"]) == ("model_not_found", "model")


def test_error_after_the_beginning_of_a_stream_is_an_event(openai):
    openai.engine.gate.clear()
    with requests.post(
        openai.url + "/v1/chat/completions", json={"messages": HELLO, "stream": True}, stream=True, timeout=60
    ) as response:
        lines = response.iter_lines(decode_unicode=True)
        assert response.status_code == 200
        next(lines)
        openai.engine.fails = RequestFailed("lost it")
        rest = [line for line in lines if line]
    assert json.loads(rest[-1].removeprefix("data: "))["error"]["message"] == "lost it"


def test_stream_whose_client_hangs_up_is_cancelled(openai):
    openai.engine.gate.clear()
    with requests.post(
        openai.url + "/v1/chat/completions", json={"messages": HELLO, "stream": True}, stream=True, timeout=60
    ) as response:
        next(response.iter_lines())
    openai.eventually(lambda: openai.engine.cancelled == 1 and openai.service.admission.inside == 0)
