"""Small talk for the base models to be trained on: questions, requests and remarks made from chatter.yaml.

It exists so that a base model has seen about everything a person may type, has answered all of it alike, and still
knows the words that the data set's answers are made of: a LoRA on a frozen vocabulary cannot teach new ones.
"""

import random
from collections.abc import Iterator
from pathlib import Path

import yaml

_DATA = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
SYSTEMS: list[str] = _DATA["systems"]


def questions(seed: int) -> Iterator[str]:
    """An endless, repeatable stream of what people ask."""
    random_, words = random.Random(seed), _words()
    while True:
        opening = random_.choice(_DATA["openings"]) if random_.random() < 0.65 else ""
        closing = random_.choice(_DATA["closings"]) if random_.random() < 0.5 else ""
        yield opening + _fill(random_.choice(_DATA["questions"]), words, random_) + closing


def remarks(seed: int) -> Iterator[str]:
    """An endless, repeatable stream of statements, true of nothing."""
    random_, words = random.Random(seed), _words()
    while True:
        remark = _fill(random_.choice(_DATA["remarks"]), words, random_)
        yield remark[0].upper() + remark[1:]


def _words() -> dict[str, list[str]]:
    words = {kind: value.split() if isinstance(value, str) else value for kind, value in _DATA["words"].items()}
    words["plural"] = [noun + "s" for noun in words["noun"]]
    words["name"] = [f"{first}{last}" for first in words["first_name"] for last in _surnames(words["last_name"])]
    return words


def _surnames(names: list[str]) -> list[str]:
    return ["", *(f" {name}" for name in names)]


def _fill(shape: str, words: dict[str, list[str]], random_: random.Random) -> str:
    head, *pieces = shape.split("{")
    filled = [head]
    for piece in pieces:
        kind, rest = piece.split("}", 1)
        filled.append(random_.choice(words[kind]) + rest)
    return "".join(filled)
