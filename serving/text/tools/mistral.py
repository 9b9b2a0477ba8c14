"""Mistral: `[TOOL_CALLS][{"name": ..., "arguments": {...}}]`; since 2025 `[TOOL_CALLS]NAME[ARGS]{...}` for each."""

import json
import re
from collections.abc import Collection

from serving.text.tools.marked import Call, Found, Marked, Parser, each_of, first_json

NAME = re.compile(r"\s*([\w.-]{1,256})(?:\[CALL_ID\]\w*)?(?:\[ARGS\])?(?=\s*\{)")


def parser(_names: Collection[str]) -> Parser:
    """For one answer."""
    return Marked(("[TOOL_CALLS]",), _read)


def _read(text: str) -> Found | None:
    name = NAME.match(text)
    if name is None:
        return each_of(text)
    value = first_json(text[name.end() :])
    if value is None or not isinstance(value[0], dict):
        return None
    return Found([Call(name[1], json.dumps(value[0], ensure_ascii=False))], name.end() + value[1])
