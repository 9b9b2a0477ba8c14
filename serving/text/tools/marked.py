"""Calls behind marks in an answer, read while it comes: what all ways of writing them have in common.

Text goes through at once, but for what may be the beginning of a mark. A call is told when its JSON is complete; what
never becomes one is text after all, so nothing that a model said is lost.
"""

import json
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol


class Call(NamedTuple):
    """One call of a tool."""

    name: str
    arguments: str
    """As JSON."""


class Found(NamedTuple):
    """What was read behind a mark."""

    calls: list[Call]
    length: int
    """Characters that they took."""


Read = Callable[[str], Found | None]
"""Reads what stands behind a mark; None while it is not complete, and for good if it is no call."""


class Parser(Protocol):
    """Reads one answer."""

    def push(self, text: str) -> list[str | Call]:
        """Some more of the answer; what of it can be told now."""

    def end(self) -> list[str | Call]:
        """The rest, when nothing follows."""


class Marked:
    """A `Parser` for text in which `begins` mark calls; `ends` are taken away."""

    def __init__(
        self, begins: tuple[str, ...], read: Read, *, ends: tuple[str, ...] = (), inside: bool = False
    ) -> None:
        self._begins = begins
        self._ends = ends
        self._read = read
        self._held = ""
        self._inside = inside
        self._mark = ""
        """The mark that is inside of, as it was written."""
        self._called = self._gap = False
        """Whether there was a call; whether nothing but white space came since."""

    def push(self, text: str) -> list[str | Call]:
        """See `Parser.push`."""
        self._held += text
        told: list[str | Call] = []
        readable = not text or any(end in text for end in "}]")
        while self._inside_step(told) if self._inside and readable else self._outside_step(told):
            readable = True
        return told

    def end(self) -> list[str | Call]:
        """See `Parser.end`."""
        told = self.push("")
        rest, self._held, self._mark = self._mark + self._held, "", ""
        return told + self._text(rest)

    def _inside_step(self, told: list[str | Call]) -> bool:
        found = self._read(self._held)
        if found is None:
            return False
        told += found.calls
        self._held, self._inside, self._mark = self._held[found.length :], False, ""
        self._called = self._gap = True
        return True

    def _outside_step(self, told: list[str | Call]) -> bool:
        if self._inside:
            return False
        ends = self._ends if self._called else ()
        marks = [(at, -len(mark), mark) for mark in self._begins + ends if (at := self._held.find(mark)) >= 0]
        if not marks:
            sure = len(self._held) - self._doubtful() if self._held.strip() or not self._gap else 0
            told += self._text(self._held[:sure])
            self._held = self._held[sure:]
            return False
        at, _, mark = min(marks)
        told += self._text(self._held[:at])
        self._held = self._held[at + len(mark) :]
        self._inside = mark in self._begins
        self._mark = mark if self._inside else ""
        return True

    def _text(self, text: str) -> list[str | Call]:
        """White space between calls is the template's, not the answer's."""
        if not text or (self._gap and not text.strip()):
            return []
        self._gap = False
        return [text]

    def _doubtful(self) -> int:
        """How many characters at the end may be the beginning of a mark."""
        return max(
            (
                size
                for mark in self._begins + self._ends
                for size in range(1, min(len(mark), len(self._held) + 1))
                if self._held.endswith(mark[:size])
            ),
            default=0,
        )


def first_json(text: str) -> tuple[Any, int] | None:
    """The JSON value that text begins with, and where it ends; None if it is not complete, or none."""
    start = len(text) - len(text.lstrip())
    try:
        return json.JSONDecoder(strict=False).raw_decode(text, start)
    except (ValueError, RecursionError):
        return None


def each_of(text: str) -> Found | None:
    """A `Read` for a call, or a list of them, as JSON."""
    if (value := first_json(text)) is None:
        return None
    listed = value[0] if isinstance(value[0], list) else [value[0]]
    calls = [call for call in map(call_of, listed) if call]
    return Found(calls, value[1]) if calls and len(calls) == len(listed) else None


def call_of(value: Any) -> Call | None:
    """A call as models write it: a name, and an object of arguments or parameters."""
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return None
    arguments = value.get("arguments", value.get("parameters", {}))
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except ValueError:
            return None
    return Call(value["name"], json.dumps(arguments, ensure_ascii=False)) if isinstance(arguments, dict) else None
