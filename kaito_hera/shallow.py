"""JSON of any depth. The API server takes thousands of levels where a schema is open, Python's parser does not.

Whoever may write an object must not end those who read it: what lies too deep is cut off, so that the object is refused
by its own model and everybody else's are still seen.
"""

import json
import re
from typing import Any

DEEPEST = 250
"""Levels that are kept: far more than any kind of Kubernetes has, and few enough for every reader."""
CUT = '"..."'
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]')


def loads(text: str) -> Any:
    """As json.loads, but a text that is too deep for it is read without what lies below."""
    try:
        return json.loads(text)
    except RecursionError:
        return json.loads(_cut(text))


def _cut(text: str) -> str:
    kept, depth, after = [], 0, 0
    for token in _TOKEN.finditer(text):
        if token[0] in "[{":
            depth += 1
            if depth == DEEPEST + 1:
                kept.append(text[after : token.start()])
                after = len(text)  # unless it comes up again
        elif token[0] in "]}":
            depth -= 1
            if depth == DEEPEST:
                kept.append(CUT)
                after = token.end()
    return "".join([*kept, text[after:]])
