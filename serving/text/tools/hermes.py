"""Hermes, Qwen 2.5 and 3: `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`, once for each call."""

from collections.abc import Collection

from serving.text.tools.marked import Marked, Parser, each_of


def parser(_names: Collection[str]) -> Parser:
    """For one answer."""
    return Marked(("<tool_call>",), each_of, ends=("</tool_call>",))
