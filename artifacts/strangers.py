"""What strangers write, made harmless: words that no terminal obeys, JSON that is read or is a ValueError."""

import json
from typing import Any


class Told(Exception):
    """An error whose words go as far as a status and a terminal, and may be those of a server."""

    def __init__(self, words: str = "") -> None:
        super().__init__(inert(words))


def inert(text: str) -> str:
    """The text without what a terminal would obey: control characters, and those that turn the writing round."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def parsed(text: str | bytes) -> Any:
    """JSON; raises ValueError for what is none, also for brackets without end."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
