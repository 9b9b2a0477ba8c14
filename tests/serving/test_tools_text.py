"""Calls of tools in answers, whole and in pieces: what the four ways of writing them mean."""

import itertools
import json
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.config import ToolCallParser
from serving.text import tools
from serving.text.tools import Call

NAMES = ["weather", "sum_up"]
WEATHER = Call("weather", '{"city": "Köln; {x}"}')
SUM = Call("sum_up", '{"a": [1, {"b": "]"}]}')
KINDS = {kind.name: kind for kind in tools.KINDS}


def written(key, *calls):
    return [json.dumps({"name": call.name, key: json.loads(call.arguments)}, ensure_ascii=False) for call in calls]


ONE, TWO = written("arguments", WEATHER, SUM)
LLAMA_ONE, LLAMA_TWO = written("parameters", WEATHER, SUM)
ANSWERS = [
    ("hermes", f"Let me see. <tool_call>\n{ONE}\n</tool_call>", ["Let me see. ", WEATHER]),
    ("hermes", f"<tool_call>{ONE}</tool_call>\n<tool_call>\n{TWO}</tool_call>\n", [WEATHER, SUM]),
    ("hermes", f"<tool_call>{ONE}", [WEATHER]),
    ("hermes", "a < b, <tool_calm> and </tool_call>", ["a < b, <tool_calm> and </tool_call>"]),
    ("hermes", '<tool_call>{"name": "weather", "argu', ['<tool_call>{"name": "weather", "argu']),
    ("hermes", f"<tool_call>{ONE}</tool_call> It is warm.", [WEATHER, " It is warm."]),
    ("mistral", f"[TOOL_CALLS] [{ONE}, {TWO}]", [WEATHER, SUM]),
    ("mistral", f"[TOOL_CALLS]weather[ARGS]{WEATHER.arguments}[TOOL_CALLS]sum_up{SUM.arguments}", [WEATHER, SUM]),
    ("mistral", "[1, 2] and [TOOL", ["[1, 2] and [TOOL"]),
    ("mistral", '[TOOL_CALLS] [{"n": 1}]', ['[TOOL_CALLS] [{"n": 1}]']),
    ("phi4_mini_json", f"<|tool_call|>[{ONE}, {TWO}]<|/tool_call|>", [WEATHER, SUM]),
    ("phi4_mini_json", f"functools[{ONE}]", [WEATHER]),
    ("phi4_mini_json", "Python's functools is one.", ["Python's functools is one."]),
    ("llama3_json", LLAMA_ONE, [WEATHER]),
    ("llama3_json", f"\n<|python_tag|>{LLAMA_ONE}; {LLAMA_TWO}", [WEATHER, SUM]),
    ("llama3_json", '{"name": "nobody", "parameters": {}}', ['{"name": "nobody", "parameters": {}}']),
    ("llama3_json", '{"colour": "red"}', ['{"colour": "red"}']),
    ("llama3_json", f"It is {LLAMA_ONE}", [f"It is {LLAMA_ONE}"]),
    ("llama3_json", "<|python", ["<|python"]),
]


def read(parser, pieces):
    """What a parser tells, with the text of one stretch put together."""
    told = []
    for each in [*(each for piece in pieces for each in parser.push(piece)), *parser.end()]:
        if told and isinstance(each, str) and isinstance(told[-1], str):
            told[-1] += each
        else:
            told.append(each)
    return told


@pytest.mark.parametrize(("kind", "answer", "told"), ANSWERS)
def test_calls_are_found_and_nothing_else_is_lost(kind, answer, told):
    assert read(KINDS[kind].parser(NAMES), [answer]) == told
    assert read(KINDS[kind].parser(NAMES), answer) == told


@given(st.sampled_from(ANSWERS), st.lists(st.integers(0, 120)))
def test_it_does_not_matter_how_an_answer_is_cut(answer, cuts):
    kind, text, told = answer
    bounds = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    pieces = [text[begin:end] for begin, end in itertools.pairwise(bounds)]
    assert read(KINDS[kind].parser(NAMES), pieces) == told


@given(
    st.sampled_from(sorted(KINDS)), st.lists(st.sampled_from(["<tool_call>", "[TOOL_CALLS]", "{", "}", "]", "; ", "x"]))
)
def test_answers_without_calls_come_through_word_for_word(kind, pieces):
    assert "".join(read(KINDS[kind].parser(NAMES), pieces)) == "".join(pieces)


def test_text_is_told_as_soon_as_it_cannot_be_a_mark():
    parser = KINDS["hermes"].parser(NAMES)
    assert parser.push("a <tool") == ["a "]
    assert parser.push("box") == ["<toolbox"]
    assert parser.push(f"<tool_call>{ONE}") == [WEATHER]


def test_a_config_can_name_each_way():
    assert set(KINDS) == set(get_args(ToolCallParser))
    assert {tools.of_template("{{ tools }} somehow", name).name for name in KINDS} == set(KINDS)
    assert tools.of_template("{{ messages }}", "hermes") is None


def test_a_forced_answer_is_a_list_of_calls():
    assert read(tools.forced(), f"[{ONE}, {TWO}]") == [WEATHER, SUM]


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("{% if tools %}<tools>{{ tools }}</tools> within <tool_call></tool_call>{% endif %}", "hermes"),
        ("{{ tools }}[AVAILABLE_TOOLS]...[TOOL_CALLS]", "mistral"),
        ("{% if message['tools'] %}<|tool|>{{ message['tools'] }}<|/tool|>{% endif %}", "phi4_mini_json"),
        ('{% if tools %}{"name": function name, "parameters": dictionary}{% endif %}', "llama3_json"),
        ("{{ tools }} somehow", None),
        ("{{ messages }} <tool_call>", None),
    ],
)
def test_the_template_tells_how_calls_are_written(template, name):
    kind = tools.of_template(template)
    assert (kind.name if kind else None) == name
