"""What clients are told of a request that cannot be honoured, and which requests must not be refused."""

import json

import pydantic
import pytest
import requests

from serving.api import chat, openai_body, tokenizing
from tests.serving import fakes

HELLO = [{"role": "user", "content": "Hi"}]
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
SILENT = (
    "{% for m in messages %}{% if m.role in ['user', 'assistant', 'system'] %}"
    "<|{{ m.role }}|>{{ m.content }}<|end|>{% endif %}{% endfor %}<|assistant|>"
)
"""Like most templates: what it does not know it leaves out."""


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with fakes.server(tmp_path_factory.mktemp("refusals"), tokenizer=fakes.ByteTokenizer(SILENT)) as client:
        yield client


@pytest.fixture
def server(running):
    running.engine.forget()
    return running


def refused(server, path, **body):
    """The error, of a request that no engine saw."""
    response = server.post(path, **body)
    assert response.status_code == 400, response.text
    assert not server.engine.seen
    return response.json()["detail"] if path == "/chat" else response.json()["error"]


def asked(server):
    return server.engine.tokenizer.text(server.engine.seen[-1].prompt)


@pytest.mark.parametrize("role", ["usr", "User", "", "end|><|assistant", "function"])
def test_a_role_that_does_not_exist_is_refused_with_those_that_do(server, role):
    turns = [*HELLO, {"role": role, "content": "hi"}]
    error = refused(server, CHAT, messages=turns)
    known = "the roles are system, developer, user, assistant, tool"
    assert (error["message"], error["param"]) == (
        f"messages[1].role is {json.dumps(role)}: {known}",
        "messages[1].role",
    )
    detail = refused(server, "/chat", messages=turns)
    assert detail == f"messages[1].role is {json.dumps(role)}: the roles are system, user, assistant, tool"


def test_a_role_that_the_template_drops_is_refused(server):
    turns = [*HELLO, {"role": "tool", "content": "42", "tool_call_id": "1"}]
    told = (
        'messages[1].role is "tool": this model\'s chat template leaves messages of the role tool out; write its words'
    )
    error = refused(server, CHAT, messages=turns)
    assert error["message"].startswith(told)
    assert error["param"] == "messages[1].role"
    assert refused(server, "/chat", messages=turns).startswith(told)


def test_a_role_that_the_template_writes_reaches_the_model(tmp_path):
    with fakes.server(tmp_path, tokenizer=fakes.ByteTokenizer(fakes.OTHER_TEMPLATE)) as server:
        turns = [*HELLO, {"role": "tool", "content": "42"}]
        for path in (CHAT, "/chat"):
            assert server.post(path, messages=turns).status_code == 200
            assert asked(server) == "[user] Hi\n[tool] 42\n[bot] "


@pytest.mark.parametrize(
    ("template", "text"),
    [
        pytest.param(SILENT, "<|system|>Be kind.<|end|><|user|>Hi<|end|><|assistant|>", id="unknown"),
        pytest.param("{# developer #}" + fakes.OTHER_TEMPLATE, "[developer] Be kind.\n[user] Hi\n[bot] ", id="known"),
    ],
)
def test_a_developers_words_are_the_systems_unless_the_template_knows_developers(tmp_path, template, text):
    with fakes.server(tmp_path, tokenizer=fakes.ByteTokenizer(template)) as server:
        turns = [{"role": "developer", "content": "Be kind."}, *HELLO]
        assert server.post(CHAT, messages=turns).status_code == 200
        assert asked(server) == text


def parts(*given):
    return {"messages": [{"role": "user", "content": list(given)}]}


IMAGE = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


@pytest.mark.parametrize(
    ("path", "body", "param", "words"),
    [
        (CHAT, {"n": 9}, "n", "n is 9: at most 8 answers are made of one prompt"),
        (CHAT, {"n": True}, "n", "n is true: it must be a whole number"),
        (CHAT, parts(IMAGE), "messages[0].content[0].type", "is \"image_url\": it must be 'text'"),
        (CHAT, parts({"type": "text"}), "messages[0].content[0].text", "is missing: it is required"),
        (CHAT, parts("text"), "messages[0].content[0]", 'is "text": it must be an object'),
        (CHAT, {"messages": [{"role": "user", "content": 3}]}, "messages[0].content", "it must be a string or a list"),
        (CHAT, {"messages": [{"role": "user"}]}, "messages[0].content", "is null: it must be a string or a list"),
        (CHAT, {"messages": [{"content": "x"}]}, "messages[0].role", "messages[0].role is missing: it is required"),
        (CHAT, {"messages": []}, "messages", "messages is []: it must be a list of at least 1"),
        (CHAT, {"messages": None}, "messages", "messages is null: it must be a list"),
        (
            CHAT,
            {"messages": [*HELLO, {"role": "assistant", "content": None, "tool_calls": [CALL]}]},
            "messages[1].tool_calls",
            "this model's chat template leaves calls of tools out; leave them out",
        ),
        (CHAT, {"messages": [{**HELLO[0], "images": ["x"]}]}, "messages[0].images", "this API has no such field"),
        (
            CHAT,
            {"messages": [{**HELLO[0], "content": "x" * 1200}]},
            "messages",
            "the prompt is too long, shorten it",
        ),
        (CHAT, {"max_completion_tokens": 996}, "max_completion_tokens", "messages has 5 tokens and max_completion_to"),
        (CHAT, {"repetition_penalty": 1e-40}, "repetition_penalty", "is 1e-40: it must be at least 0.01"),
        (CHAT, {"stop": ["a", 3]}, "stop[1]", "stop[1] is 3: it must be a string"),
        (CHAT, {"stream_options": {"include_usage": "perhaps"}}, "stream_options.include_usage", "true or false"),
        (CHAT, {"stream_options": {"include_obfuscation": True}}, "stream_options.include_obfuscation", "send false"),
        (CHAT, {"chat_template_kwargs": {"enable_thinking": False}}, "chat_template_kwargs", "leave it out or send {}"),
        (CHAT, {"reasoning_effort": "low"}, "reasoning_effort", "it is not supported yet; leave it out"),
        (CHAT, {"zeal": "\udfff"}, "zeal", 'zeal is "\\udfff": this API has no such field; leave it out'),
        (
            COMPLETIONS,
            {"prompt": "x" * 1200},
            "prompt",
            "prompt has 1200 tokens: this model's maximum context length is 1000",
        ),
        (COMPLETIONS, {"prompt": "x", "max_tokens": 1000}, "max_tokens", "ask for at most 999"),
        (
            COMPLETIONS,
            {"prompt": ""},
            "prompt",
            "prompt has no tokens: write something",
        ),
        (COMPLETIONS, {}, "prompt", "prompt is missing: it is required"),
        (COMPLETIONS, {"prompt": []}, "prompt", "prompt is []: it lists no prompt"),
        (COMPLETIONS, {"prompt": ["a"] * 257}, "prompt", "it lists 257 prompts; at most 256 are taken"),
        (COMPLETIONS, {"prompt": ["a"] * 200}, None, "the request asks for 200 answers; at most 65 are made at a time"),
        (COMPLETIONS, {"prompt": [5, 260]}, "prompt[1]", "prompt[1] is 260: a token of this model is 0 to 259"),
        (COMPLETIONS, {"prompt": [5], "echo": True}, "echo", "echo is true: it needs a prompt of text"),
        (COMPLETIONS, {"prompt": "x", "logprobs": 21}, "logprobs", "logprobs is 21: it must be at most 20"),
        (COMPLETIONS, {"prompt": "x", "tools": []}, "tools", "this API has no such field"),
    ],
)
def test_an_openai_error_names_path_value_and_way_out(server, path, body, param, words):
    body = {"messages": HELLO} | body if path == CHAT else body
    error = refused(server, path, **body)
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert words in error["message"]


def test_a_value_is_shown_in_part(server):
    error = refused(server, CHAT, messages=HELLO, tools=["x" * 5000])
    assert len(error["message"]) < 300


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (openai_body.CompletionBody, {"prompt": [None] * 200}),
        (openai_body.CompletionBody, {"prompt": [[None] * 1000] * 200}),
        (openai_body.CompletionBody, {"prompt": "x", "stop": [0] * 1000}),
        (openai_body.CompletionBody, {"prompt": "x", "stop_token_ids": [None] * 1000}),
        (openai_body.CompletionBody, {"prompt": "x", "structured_outputs": {"choice": [0] * 1000}}),
        (openai_body.ChatBody, {"messages": [0] * 1000}),
        (openai_body.ChatBody, {"messages": [{"role": "user", "content": [0] * 1000}]}),
        (openai_body.ChatBody, {"messages": [{"role": "assistant", "tool_calls": [0] * 1000}]}),
        (openai_body.ChatBody, {"messages": HELLO, "tools": [0] * 100}),
        (tokenizing.TokenizeBody, {"messages": HELLO, "tools": [0] * 1000}),
        (tokenizing.DetokenizeBody, {"tokens": [None] * 1000}),
        (chat.Body, {"messages": [0] * 1000}),
        (chat.Body, {"prompt": "x", "generate_kwargs": {"eos_token_id": [None] * 1000}}),
        (chat.Body, {"prompt": "x", "generate_kwargs": {"stop_strings": [0] * 1000}}),
    ],
)
def test_the_first_wrong_entry_of_many_ends_the_look_at_them(kind, body):
    """A report of each takes seconds for a body of megabytes, and nobody else is answered meanwhile."""
    with pytest.raises(pydantic.ValidationError) as found:
        kind.model_validate(body)
    assert found.value.error_count() < 10


def test_too_many_tokens_have_the_code_that_clients_look_for(server):
    turns = [{"role": "user", "content": "x" * 2000}]
    assert refused(server, CHAT, messages=turns)["code"] == "context_length_exceeded"
    assert refused(server, COMPLETIONS, prompt="x" * 2000)["code"] == "context_length_exceeded"


ANSWERED = {
    "role": "assistant", "content": "Yes?", "refusal": None, "annotations": [], "audio": None, "function_call": None,
    "tool_calls": None,
}  # fmt: skip
"""An answer as OpenAI's Python client gives it, sent back in the next request."""


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"chat_template_kwargs": {}, "documents": None, "echo": False}, id="vllm"),
        pytest.param({"presence_penalty": 0, "frequency_penalty": 0.0, "logit_bias": {}, "n": 1}, id="sampling"),
        pytest.param({"user": "me", "metadata": {"a": "b"}, "store": True, "service_tier": "auto"}, id="bookkeeping"),
        pytest.param({"prompt_cache_key": "k", "prompt_cache_options": {"mode": "implicit"}}, id="cache"),
        pytest.param({"safety_identifier": "s", "prediction": {"type": "content", "content": "x"}}, id="openai"),
        pytest.param({"seed": 3, "logprobs": False, "top_logprobs": None, "verbosity": "medium"}, id="chat"),
        pytest.param({"response_format": {"type": "text"}, "modalities": ["text"]}, id="format"),
        pytest.param({"tools": [], "tool_choice": "none", "parallel_tool_calls": True, "functions": None}, id="tools"),
        pytest.param({"stream_options": {"include_usage": None, "include_obfuscation": False}}, id="stream options"),
        pytest.param({"stream_options": None, "reasoning_effort": None, "stop": None, "top_k": -1}, id="null"),
        pytest.param({"min_tokens": 0, "ignore_eos": False, "stop_token_ids": [], "length_penalty": 1.0}, id="engine"),
        pytest.param({"messages": [*HELLO, ANSWERED, {**HELLO[0], "name": "me"}]}, id="history"),
    ],
)
def test_what_changes_nothing_is_taken(server, fields):
    response = server.post(CHAT, **{"messages": HELLO} | fields)
    assert response.status_code == 200, response.text


def test_the_bodies_of_langchains_completions_are_taken(server):
    body = {
        "model": "tiny", "prompt": ["hi"], "frequency_penalty": 0, "logprobs": None, "max_tokens": 256, "n": 1,
        "presence_penalty": 0, "seed": None, "temperature": 0.7, "top_p": 1,
    }  # fmt: skip
    assert server.post(COMPLETIONS, **body).status_code == 200
    assert asked(server) == "hi"
    assert server.post(COMPLETIONS, prompt=[[10, 11]]).status_code == 200
    assert server.engine.seen[-1].prompt == (10, 11)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        pytest.param('{"prompt": 3}', "prompt is 3: it must be a string", id="prompt"),
        pytest.param('{"messages": [{"role": "user"}]}', "messages[0].content is missing", id="content"),
        pytest.param(
            '{"messages": {"role": "user"}}', 'messages is {"role": "user"}: it must be a list', id="messages"
        ),
        pytest.param(
            '{"prompt": "x", "generate_kwargs": {"temperature": NaN}}',
            "generate_kwargs.temperature is NaN: it must be a finite number",
            id="nan",
        ),
        pytest.param('{"prompt": "x", "generate_kwargs": {"top_p": Infinity}}', "top_p is Infinity: it must", id="inf"),
        pytest.param(
            '{"prompt": "x", "generate_kwargs": [1]}', "generate_kwargs is [1]: it must be an object", id="list"
        ),
        pytest.param('{"prompt": ', "the body is no JSON: Expecting value", id="cut"),
        pytest.param("[]", "the body is []: it must be an object", id="no object"),
        pytest.param("", "the body is missing: send a JSON object", id="nothing"),
    ],
)
def test_odd_bodies_are_400_where_kaito_answered_422(server, body, words):
    response = requests.post(server.url + "/chat", data=body, headers={"Content-Type": "application/json"}, timeout=60)
    assert response.status_code == 400
    assert words in response.json()["detail"]


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
@pytest.mark.parametrize(
    "body",
    [
        pytest.param("[" * 100_000, id="deep"),
        pytest.param(
            '{"tools": ' + "[" * 900 + "]" * 900 + ', "messages": [{"role": "user", "content": "x"}]}', id="nested"
        ),
        pytest.param('{"a": ' + "9" * 5000 + "}", id="a long number"),
        pytest.param('{"messages": [{"role": "\\ud800", "content": "x"}]}', id="half a character"),
        pytest.param('{"\\ud800": 1, "messages": [{"role": "user", "content": "x"}]}', id="half a character's name"),
    ],
)
def test_bodies_that_only_an_enemy_sends_are_400(server, path, body):
    headers = {"Content-Type": "application/json"}
    assert requests.post(server.url + path, data=body, headers=headers, timeout=60).status_code == 400
