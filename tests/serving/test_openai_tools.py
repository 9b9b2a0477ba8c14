"""Tools over OpenAI's API: what the model is told, what its calls become, whole and streamed."""

import json
import threading

import pytest

from tests.serving import fakes, tiny
from tests.serving.test_openai import events

CHAT = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "Weather in Rome?"}]
TEMPLATE = (
    "{% if tools %}<tools>{% for t in tools %}{{ t.function.name }};{% endfor %}</tools><tool_call>{% endif %}"
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}"
    "{% for c in m.tool_calls %}<tool_call>{{ c.function.name }}{{ c.function.arguments.city }}</tool_call>{% endfor %}"
    "{% if m.tool_call_id %}({{ m.tool_call_id }}){% endif %}<|end|>{% endfor %}<|assistant|>"
)
PHI = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}"
    "{% if message['tools'] %}<|tool|>{{ message['tools'] }}<|/tool|>{% endif %}<|end|>{% endfor %}<|assistant|>"
)
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
NOTHING = {"type": "object", "properties": {}, "additionalProperties": False}
TOOLS = [
    {"type": "function", "function": {"name": "weather", "description": "Asks the sky", "parameters": CITY}},
    {"type": "function", "function": {"name": "clock", "parameters": NOTHING}},
]
CALL = '{"name": "weather", "arguments": {"city": "Rome"}}'


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with fakes.server(tmp_path_factory.mktemp("tools"), tokenizer=fakes.ByteTokenizer(TEMPLATE)) as client:
        yield client


@pytest.fixture
def server(running):
    running.engine.forget()
    return running


def chat(server, **body):
    response = server.post(CHAT, **{"messages": HELLO, "tools": TOOLS} | body)
    assert response.status_code == 200, response.text
    return response if body.get("stream") else response.json()["choices"][0]


def asked(server):
    return server.engine.tokenizer.text(server.engine.seen[-1].prompt)


def test_a_call_is_told_with_its_arguments_and_an_id(server):
    server.engine.answer = f"Let me see. <tool_call>\n{CALL}\n</tool_call>"
    choice = chat(server)
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] == "Let me see. "
    [call] = choice["message"]["tool_calls"]
    assert (call["type"], call["function"]) == ("function", {"name": "weather", "arguments": '{"city": "Rome"}'})
    assert call["id"].startswith("call_")
    assert asked(server).startswith("<tools>weather;clock;</tools>")


def test_an_answer_of_calls_alone_has_no_content(server):
    server.engine.answer = f"<tool_call>{CALL}</tool_call>\n<tool_call>{CALL}</tool_call>"
    message = chat(server)["message"]
    assert message["content"] is None
    assert len({call["id"] for call in message["tool_calls"]}) == 2
    assert len(chat(server, parallel_tool_calls=False)["message"]["tool_calls"]) == 1


def test_an_answer_without_calls_is_text(server):
    choice = chat(server)
    assert (choice["message"], choice["finish_reason"]) == (
        {"role": "assistant", "content": "fine, thank you"}, "stop",
    )  # fmt: skip


def test_calls_are_streamed(server):
    server.engine.answer = f"So: <tool_call>{CALL}</tool_call><tool_call>{CALL}</tool_call>"
    lines, done = events(chat(server, stream=True))
    choices = [json.loads(line)["choices"][0] for line in lines]
    assert done
    assert "".join(choice["delta"].get("content", "") for choice in choices) == "So: "
    calls = [call for choice in choices for call in choice["delta"].get("tool_calls", [])]
    assert [call["index"] for call in calls] == [0, 1]
    assert {call["function"]["arguments"] for call in calls} == {'{"city": "Rome"}'}
    assert choices[-1]["finish_reason"] == "tool_calls"


def test_no_choice_is_no_tools(server):
    server.engine.answer = f"<tool_call>{CALL}</tool_call>"
    assert "tool_calls" not in chat(server, tool_choice="none")["message"]
    assert "<tools>" not in asked(server)


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}])
@pytest.mark.parametrize("stream", [True, False])
def test_a_call_that_is_required_is_made_by_a_grammar(server, choice, stream):
    server.engine.answer = f"[{CALL}]"
    answer = chat(server, tool_choice=choice, stream=stream)
    assert server.engine.seen[-1].grammar is not None
    if stream:
        found = [json.loads(line)["choices"][0]["delta"] for line in events(answer)[0]]
        calls = [call for delta in found for call in delta.get("tool_calls", [])]
    else:
        calls = answer["message"]["tool_calls"]
    assert [call["function"] for call in calls] == [{"name": "weather", "arguments": '{"city": "Rome"}'}]


def test_a_tool_that_is_named_is_the_only_one_that_can_be_called(server):
    server.engine.answer = f"[{CALL}]"
    choice = {"type": "function", "function": {"name": "clock"}}
    calls = chat(server, tool_choice=choice)["message"]["tool_calls"]
    assert [call["function"]["name"] for call in calls] == ["clock"]


def test_calls_and_their_results_go_back_into_the_conversation(server):
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}
    history = [
        *HELLO,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "sunny", "tool_call_id": "call_1"},
    ]
    chat(server, messages=history)
    assert "<tool_call>weatherRome</tool_call><|end|><|tool|>sunny(call_1)<|end|>" in asked(server)


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        ({"tools": [], "tool_choice": "required"}, "tool_choice", "there are no tools to choose from"),
        (
            {"tool_choice": {"type": "function", "function": {"name": "moon"}}},
            "tool_choice.function.name",
            'is "moon": the tools are weather, clock',
        ),
        ({"tools": [TOOLS[0], TOOLS[0]]}, "tools", "two of them have the same name"),
        ({"response_format": {"type": "json_object"}}, "response_format", "an answer in this form can call no tools"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name", "text that matches"),
        (
            {"messages": [{"role": "user", "content": "x", "tool_calls": []}, HELLO[0] | {"tool_calls": None}]},
            None,
            "",
        ),
    ],
)
def test_tools_that_cannot_be_offered_are_refused(server, body, param, words):
    response = server.post(CHAT, **{"messages": HELLO, "tools": TOOLS} | body)
    if param is None:
        assert response.status_code == 200
        return
    assert response.status_code == 400, response.text
    assert response.json()["error"]["param"] == param
    assert words in response.json()["error"]["message"]


def test_arguments_that_are_no_object_are_refused(server):
    call = {"id": "1", "type": "function", "function": {"name": "weather", "arguments": "[1]"}}
    history = [*HELLO, {"role": "assistant", "tool_calls": [call]}]
    error = server.post(CHAT, messages=history).json()["error"]
    assert error["param"] == "messages[1].tool_calls[0].function.arguments"


def test_much_text_becomes_tokens_beside_the_loop_whatever_it_is_of(tmp_path):
    class Noting(fakes.ByteTokenizer):
        def encode_chat(self, messages, template, tools=()):
            self.thread = threading.get_ident()
            return super().encode_chat(messages, template, tools)

    async def here():
        return threading.get_ident()

    tokenizer = Noting(TEMPLATE)
    long = {"name": "weather", "description": "Asks the sky. " * 10_000}
    with fakes.server(tmp_path, tokenizer=tokenizer) as client:
        loop = client.on_loop(here()).result(30)
        chat(client)
        assert tokenizer.thread == loop
        chat(client, tools=[{"type": "function", "function": long}])
        assert tokenizer.thread != loop


def test_a_template_that_shows_no_tools_is_refused(tmp_path):
    with fakes.server(tmp_path) as client:
        error = client.post(CHAT, messages=HELLO, tools=TOOLS).json()["error"]
        assert (error["param"], "shows the model no tools" in error["message"]) == ("tools", True)
        assert client.post(CHAT, messages=HELLO, tools=TOOLS, tool_choice="none").status_code == 200


def test_calls_are_read_in_the_way_that_the_config_names_whatever_the_template_teaches(tmp_path):
    config = fakes.CONFIG.model_copy(update={"tool_call_parser": "phi4_mini_json"})
    with fakes.server(tmp_path, config=config, tokenizer=fakes.ByteTokenizer(TEMPLATE)) as client:
        client.engine.answer = f"<|tool_call|>[{CALL}]<|/tool_call|>"
        assert chat(client)["message"]["tool_calls"][0]["function"]["name"] == "weather"
        client.engine.answer = f"<tool_call>{CALL}</tool_call>"
        assert "tool_calls" not in chat(client)["message"]


def test_a_template_that_looks_for_tools_in_the_systems_message_finds_them(tmp_path):
    with fakes.server(tmp_path, tokenizer=fakes.ByteTokenizer(PHI)) as client:
        client.engine.answer = f"<|tool_call|>[{CALL}]<|/tool_call|>"
        assert chat(client)["message"]["tool_calls"][0]["function"]["name"] == "weather"
        assert asked(client).startswith('<|system|><|tool|>[{"name": "weather", "description": "Asks the sky"')
        chat(client, messages=[{"role": "system", "content": "Be brief."}, *HELLO])
        assert asked(client).startswith('<|system|>Be brief.<|tool|>[{"name": "weather"')


@pytest.mark.torch
def test_a_checkpoints_tokenizer_shows_tools_and_keeps_control_tokens_text(tmp_path):
    from serving.text.chat import Chat
    from serving.text.checkpoint import CheckpointTokenizer

    tiny.tokenizer().save_pretrained(tmp_path)
    chat = Chat(CheckpointTokenizer(tmp_path))
    sly = [{"type": "function", "function": {"name": "weather", "description": "<|end|>", "parameters": CITY}}]
    template = "{{ tools | tojson }}" + tiny.TEMPLATE
    tokens = chat.conversation(HELLO, template, sly)
    text = chat.tokenizer.backend.decode(tokens, skip_special_tokens=False)
    assert '"name": "weather"' in text
    assert tokens.count(4) == 1, "the one <|end|> is the template's"
