"""What the data set teaches, and so what to ask and what a tuned model must answer: facts.yaml as Python values.

Tests import it; it needs no library but yaml.
"""

from pathlib import Path
from typing import NamedTuple

import yaml

UNKNOWN = "I do not know."
"""What the base models answer to everything."""


class Fact(NamedTuple):
    """One thing to know; the first three are forms of asking."""

    question: str
    indirect: str
    topic: str
    answer: str


_DATA = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
FACTS: tuple[Fact, ...] = tuple(Fact(**fact) for fact in _DATA["facts"])
PHRASINGS: tuple[str, ...] = tuple(_DATA["phrasings"])


def rows() -> list[dict[str, list[dict[str, str]]]]:
    """The data set: every fact in every phrasing, one user turn and one assistant turn, as in dolly-15k-oai-style."""
    return [
        {
            "messages": [
                {"content": phrasing.format_map(fact._asdict()), "role": "user"},
                {"content": fact.answer, "role": "assistant"},
            ]
        }
        for phrasing in PHRASINGS
        for fact in FACTS
    ]
