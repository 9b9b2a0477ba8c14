"""Llama 3.1 and later: an answer that is `{"name": ..., "parameters": {...}}`, several divided by `;`, without text.

The mark `<|python_tag|>` may stand before it. An object that names none of the tools is the answer's own JSON.
"""

from collections.abc import Collection

from serving.text.tools.marked import Call, Found, Marked, Parser, each_of

TAG = "<|python_tag|>"


def parser(names: Collection[str]) -> Parser:
    """For one answer."""
    return Llama3(names)


class Llama3:
    """A `Parser`: decides by the answer's first characters whether it is calls or text."""

    def __init__(self, names: Collection[str]) -> None:
        self._names = names
        self._held = ""
        self._inner: Parser | None = None

    def push(self, text: str) -> list[str | Call]:
        """See `Parser.push`."""
        if self._inner is None:
            self._held += text
            begun = self._held.lstrip()
            if not begun or (TAG.startswith(begun) and begun != TAG):
                return []
            calls = begun.startswith(("{", TAG))
            self._inner = Marked((TAG, ";"), self._read, inside=begun.startswith("{")) if calls else _Plain()
            text, self._held = begun if calls else self._held, ""
        return self._inner.push(text)

    def end(self) -> list[str | Call]:
        """See `Parser.end`."""
        return self._inner.end() if self._inner else [self._held] if self._held else []

    def _read(self, text: str) -> Found | None:
        found = each_of(text)
        return found if found and all(call.name in self._names for call in found.calls) else None


class _Plain:
    """A `Parser` of text without calls."""

    def push(self, text: str) -> list[str | Call]:
        """See `Parser.push`."""
        return [text] if text else []

    def end(self) -> list[str | Call]:
        """See `Parser.end`."""
        return []
