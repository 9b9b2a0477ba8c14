"""Rows of all shapes become conversations or texts, or say why they do not."""

import json

import pytest

from tuning.data.shapes import example
from tuning.training_config import DatasetConfig

CHAT = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]


def shape(row, **columns):
    return example(row, DatasetConfig(**columns))


@pytest.mark.parametrize(
    "row",
    [
        {"messages": CHAT},
        {"messages": json.dumps(CHAT)},
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "q"}]},
                {"role": "assistant", "content": "a", "tool_calls": None},
            ]
        },
        {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
        {"conversations": CHAT},
        {"prompt": "q", "completion": "a"},
        {"prompt": CHAT[:1], "completion": CHAT[1:]},
        {"instruction": "q", "output": "a"},
        {"instruction": "q", "input": "", "output": "a"},
        {"instruction": "q", "context": None, "response": "a", "category": "x"},
        {"question": "q", "answer": "a"},
        {"text": "unused", "messages": CHAT},
    ],
)
def test_shapes_of_conversations(row):
    assert shape(row) == CHAT


def test_context_follows_the_question():
    for column in ("input", "context"):
        found = shape({"instruction": "q", column: "c", "output": "a"})
        assert found[0]["content"] == "q\n\nc"


def test_a_system_message_is_kept():
    said = [{"role": "system", "content": "s"}, *CHAT]
    assert shape({"messages": said}) == said


def test_a_text_is_a_text():
    assert shape({"text": "whole"}) == "whole"


@pytest.mark.parametrize(
    ("row", "columns", "found"),
    [
        ({"chat": CHAT, "text": "t"}, {"messages_column": "chat"}, CHAT),
        ({"x": "q", "y": "a", "text": "t"}, {"prompt_column": "x", "response_column": "y"}, CHAT),
        ({"x": "q", "y": "a", "messages": CHAT[:1]}, {"instruction_column": "x", "response_column": "y"}, CHAT),
        ({"instruction": "q", "y": "a", "output": "no"}, {"response_column": "y"}, CHAT),
        ({"body": "t"}, {"response_column": "body"}, "t"),
        ({"text": "t"}, {"response_column": "text"}, "t"),
        ({"messages": CHAT}, {"response_column": "text"}, CHAT),  # KAITO's default, written out
        ({"prompt": "q", "completion": "a"}, {"response_column": "text"}, CHAT),
        (
            {"q": "q", "label": 1},
            {"prompt_column": "q", "response_column": "label"},
            [CHAT[0], {"role": "assistant", "content": "1"}],
        ),
    ],
)
def test_named_columns_win(row, columns, found):
    assert shape(row, **columns) == found


def test_named_context():
    found = shape({"a": "q", "b": "c", "d": "a"}, prompt_column="a", context_column="b", response_column="d")
    assert found[0]["content"] == "q\n\nc"


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"x": 1}, "columns x are no known shape"),
        ({}, "no known shape"),
        ([1], "a row is list"),
        (None, "a row is NoneType"),
        (ValueError("not JSON: x"), "not JSON: x"),
        ({"messages": []}, "no known shape"),
        ({"messages": "hello"}, "the conversation is ValueError"),
        ({"messages": {"role": "user"}}, "the conversation is dict"),
        ({"messages": ["hello"]}, "a message is str"),
        ({"messages": CHAT[:1]}, "no answer"),
        ({"messages": [CHAT[0], {"role": "assistant", "content": " "}]}, "no answer"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "unknown role 'wizard'"),
        ({"messages": [{"role": "user", "content": None}]}, "content is NoneType, not text"),
        ({"messages": [CHAT[0], CHAT[1] | {"weight": 0}]}, "every assistant message has weight 0"),
        ({"messages": [CHAT[0], CHAT[1] | {"weight": 0.5}]}, "an assistant message has the weight 0.5"),
        ({"messages": [CHAT[0], CHAT[1] | {"weight": "0"}]}, "an assistant message has the weight '0'"),
        ({"messages": [CHAT[0], CHAT[1] | {"weight": True}]}, "an assistant message has the weight True"),
        ({"messages": [CHAT[0], CHAT[1] | {"thinking": 1.5j}]}, "thinking is complex, not text"),
        ({"prompt": "q", "completion": None}, "no known shape"),
        ({"prompt": "q", "completion": ["a"]}, "completion is list, not text"),
        (json.loads('{"prompt": "\\ud800x", "completion": "a"}'), "prompt has half of a character"),
        (json.loads('{"text": "x\\udc00"}'), "text has half of a character"),
        ({"text": ""}, "column text is empty"),
        ({"text": None}, "text is NoneType"),
    ],
)
def test_bad_rows_say_why(row, words):
    with pytest.raises(ValueError) as raised:
        shape(row)
    assert words in str(raised.value)


def test_a_named_column_that_is_missing_is_named():
    with pytest.raises(ValueError, match="there is no column chat; the columns are messages"):
        shape({"messages": CHAT}, messages_column="chat")


CALL = {"id": "one", "type": "function", "function": {"name": "clock", "arguments": {"zone": "CET", "other": None}}}


@pytest.mark.parametrize("arguments", [{"zone": "CET", "of another row": None}, '{"zone": "CET"}'])
@pytest.mark.parametrize("whole", [list, json.dumps])
def test_calls_of_tools_and_what_they_answer(arguments, whole):
    call = {"id": "one", "function": {"name": "clock", "arguments": arguments}}
    said = [CHAT[0], {"role": "assistant", "content": None, "tool_calls": whole([call])}]
    said += [{"role": "tool", "tool_call_id": "one", "content": "noon"}, CHAT[1]]
    called = {"id": "one", "type": "function", "function": {"name": "clock", "arguments": {"zone": "CET"}}}
    assert shape({"messages": said}) == [
        CHAT[0],
        {"role": "assistant", "content": "", "tool_calls": [called]},
        {"role": "tool", "tool_call_id": "one", "content": "noon"},
        CHAT[1],
    ]


def test_a_call_is_an_answer():
    assert shape({"messages": [CHAT[0], {"role": "assistant", "tool_calls": [CALL]}]})


def test_an_answer_of_weight_0_is_carried_as_such_and_1_is_any_other():
    said = [CHAT[0] | {"weight": 0}, CHAT[1] | {"weight": 0.0}, CHAT[0], CHAT[1] | {"weight": 1}]
    found = shape({"messages": [*said, CHAT[0], CHAT[1] | {"weight": None}, CHAT[1] | {"weight": float("nan")}]})
    assert found == [CHAT[0], CHAT[1] | {"weight": 0}, *CHAT, *CHAT, CHAT[1]]


@pytest.mark.parametrize("name", ["reasoning_content", "thinking", "reasoning"])
def test_what_an_assistant_thought_is_kept(name):
    said = [CHAT[0], CHAT[1] | {name: "because"}]
    assert shape({"messages": said}) == said
    assert shape({"messages": [CHAT[0] | {name: "because"}, CHAT[1] | {name: None}]}) == CHAT
