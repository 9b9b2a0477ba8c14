"""Answers in a given form: whatever a model prefers, what comes out is what was asked for."""

import json
import random
import re

import jsonschema
import pytest

from serving.text.chat import TextRefused
from serving.text.grammar import Grammars
from tests.serving import fakes

SCHEMA = {
    "type": "object",
    "properties": {"age": {"type": "integer"}, "kind": {"enum": ["x", "y"]}, "tags": {"type": "array", "maxItems": 2}},
    "required": ["age", "kind"],
    "additionalProperties": False,
}
TOKENIZER = fakes.ByteTokenizer()
GRAMMARS = Grammars(TOKENIZER.backend, vocabulary=270, stop_ids={fakes.END, 0})
"""A vocabulary larger than the tokenizer's, as many models have it."""


def wander(walk, seed, most=2000):
    """The text of a model that likes all tokens, and ends as soon as it may."""
    chance, said = random.Random(seed), []
    while len(said) < most:
        allowed = walk.allowed()
        assert allowed.shape == (270,)
        tokens = allowed.nonzero().flatten().tolist()
        token = fakes.END if fakes.END in tokens else chance.choice(tokens)
        walk.accept(token)
        if token == fakes.END:
            return TOKENIZER.text(said)
        said.append(token)
    raise AssertionError(f"no end: {TOKENIZER.text(said)[:200]}")


@pytest.mark.parametrize("seed", range(20))
def test_json_follows_its_schema(seed):
    jsonschema.validate(json.loads(wander(GRAMMARS.json(SCHEMA), seed)), SCHEMA)


def test_texts_follow_their_expression_or_their_choices():
    assert re.fullmatch(r"[a-c]{3}\d", wander(GRAMMARS.regex(r"[a-c]{3}\d"), 1))
    choices = ["yes", 'no\n"é"', "maybe"]
    assert {wander(GRAMMARS.choice(choices), seed) for seed in range(30)} == set(choices)


def test_what_the_grammar_does_not_take_is_an_error_and_no_end():
    walk = GRAMMARS.choice(["ab", "cd"])
    with pytest.raises(ValueError, match=r".+"):
        walk.accept(TOKENIZER.encode("x")[0])
    with pytest.raises(ValueError, match=r".+"):
        walk.allowed()


def test_what_follows_the_end_of_a_form_is_nobodys_error():
    walk = GRAMMARS.choice(["ab"])
    for token in [*TOKENIZER.encode("ab"), fakes.END, fakes.END]:
        walk.accept(token)
    assert walk.allowed()[fakes.END]


def test_two_answers_to_one_request_go_their_own_ways():
    first = GRAMMARS.choice(["ab", "cd"])
    second = first.fork()
    first.accept(TOKENIZER.encode("a")[0])
    assert first.allowed().sum() == 1
    assert second.allowed().sum() == 2


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "nonsense"},
        {"$ref": "https://example.com/schema"},
        {"pattern": "(((("},
        {"enum": []},
        {"const": "\ud800"},
        True,
        "x",
        3,
    ],
)
def test_a_schema_that_cannot_be_followed_is_refused(schema):
    with pytest.raises(TextRefused, match="this JSON schema cannot be followed: "):
        GRAMMARS.json(schema)


def test_an_expression_that_is_none_is_refused():
    with pytest.raises(TextRefused, match="regular expression"):
        GRAMMARS.regex("(")
