"""Phi-4-mini: `<|tool_call|>[{"name": ..., "arguments": {...}}]<|/tool_call|>`, or `functools[...]` as it also says."""

from collections.abc import Collection

from serving.text.tools.marked import Found, Marked, Parser, each_of


def parser(_names: Collection[str]) -> Parser:
    """For one answer."""
    return Marked(("<|tool_call|>", "functools["), _read, ends=("<|/tool_call|>",))


def _read(text: str) -> Found | None:
    """The list; behind `functools[` its bracket is read already."""
    if text.lstrip().startswith("["):
        return each_of(text)
    found = each_of("[" + text)
    return found and Found(found.calls, found.length - 1)
