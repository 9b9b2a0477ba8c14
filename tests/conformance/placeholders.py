"""What a person would put in place of `<your-vm-sku>`, `ACR_REPO_HERE` or `${GPU_NODE_SIZE}` before an apply.

Only the shape of a word says that it is a placeholder; only the field says what is put there. Where the field does not
ask for something that exists, the placeholder's own words do, in the letters that names may have.
"""

import re
from typing import Any

_WHOLE = re.compile(r"<[^<>]+>|\$\{\w+\}|\{\{[^{}]+\}\}")
_HERE = re.compile(r"[A-Z][A-Z0-9_]*_HERE")
_SHOUTED = re.compile(r"^[A-Z]{4,}(?=/)")
"""The host of an image all in capitals."""

_BY_FIELD = {
    "instanceType": "Standard_NC24ads_A100_v4",
    "preset.name": "phi-4-mini-instruct",
    "image": "team.example.com/image:1",
}


def filled(body: Any, field: str = "", parent: str = "") -> Any:
    """A copy without placeholders; `field` is the name of what `body` stands under."""
    if isinstance(body, dict):
        if len(body) == 1 and (word := _braced(body)):
            return _meant(word, field, parent)
        return {name: filled(value, name, field) for name, value in body.items()}
    if isinstance(body, list):
        return [filled(value, field, parent) for value in body]
    if not isinstance(body, str):
        return body
    if _WHOLE.fullmatch(body):
        return _meant(body, field, parent)
    body = _HERE.sub(lambda found: _words(found[0]), _WHOLE.sub(lambda found: _words(found[0]), body))
    return _SHOUTED.sub(lambda found: found[0].lower(), body) if field == "image" else body


def _meant(word: str, field: str, parent: str) -> str:
    return _BY_FIELD.get(f"{parent}.{field}") or _BY_FIELD.get(field) or _words(word)


def _words(placeholder: str) -> str:
    """`<YOUR_ACR>` becomes your-acr."""
    return "-".join(re.findall(r"[a-z0-9]+", placeholder.lower()))


def _braced(body: dict[Any, Any]) -> str:
    """`{Name}` and `{{Name}}` are maps to YAML: a capitalized key without a value."""
    ((key, value),) = body.items()
    return key if isinstance(key, str) and value is None and re.fullmatch(r"[A-Z]\w+", key) else ""
