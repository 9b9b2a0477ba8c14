"""What a refused request is told: the field as a path, the value seen and the way out, in our words.

The same for all interfaces; `serving.app` gives it each one's shape. Validators are pydantic's and their words are not:
those name Python's types and the branches of a union.
"""

import dataclasses
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any, TypeVar

import pydantic

from serving import errors
from serving.engine.protocol import ModelInfo, Sampling
from serving.text.chat import Message, TextRefused

SHOWN = 120
"""Characters of a value; a body may have megabytes."""

MAX_MESSAGES = 2048

PENALTY = (0.01, 100)
"""Beyond, `repetition_penalty` can make scores overflow; see `engine.generation.COLDEST` for what that does."""

_T = TypeVar("_T")
Many = Annotated[list[_T], pydantic.Field(fail_fast=True)]
"""A list that its first wrong entry ends: a report of each in a body of megabytes takes seconds."""

Path = tuple[str | int, ...]

MUST_BE = {
    "int": "a whole number",
    "float": "a number",
    "finite": "a finite number",
    "bool": "true or false",
    "string": "a string",
    "string_pattern_mismatch": "text that matches {pattern}",
    "string_too_long": "text of at most {max_length} characters",
    "list": "a list",
    "dict": "an object",
    "model": "an object",
    "literal": "{expected}",
    "greater_than": "above {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "below {lt}",
    "less_than_equal": "at most {le}",
    "too_short": "a list of at least {min_length}",
    "too_long": "a list of at most {max_length}",
}
"""What pydantic's types of errors ask for, by their name or its first word (`int_parsing`, `int_from_float`)."""


def of_field(path: str, value: object, remedy: str) -> errors.BadRequest:
    """A field whose value cannot be taken."""
    return errors.BadRequest(f"{path} is {shown(value)}: {remedy}", param=path)


def of_body(found: Sequence[Any], body: object) -> errors.BadRequest:
    """The first thing that pydantic found wrong with a body, told once for all branches of a union."""
    first = found[0]
    if first["type"] == "json_invalid":
        return errors.BadRequest(f"the body is no JSON: {first['ctx']['error']} at character {first['loc'][-1]}")
    paths = [_path(each, body) for each in found]
    deepest = max((path for path in paths if path[: len(paths[0])] == paths[0]), key=len)
    here = [each for each, path in zip(found, paths, strict=True) if path == deepest]
    path = written(deepest)
    if here[0]["type"] == "missing":
        missing = f"{path} is missing: it is required" if path else "the body is missing: send a JSON object"
        return errors.BadRequest(missing, param=path or None)
    wanted = " or ".join(dict.fromkeys(_wanted(each) for each in here))
    if not path:
        return errors.BadRequest(f"the body is {shown(body)}: it must be {wanted}")
    return of_field(path, here[0]["input"], f"it must be {wanted}")


def of_text(error: TextRefused, turns: Sequence[Message]) -> errors.BadRequest:
    """A conversation that the model's chat template does not take."""
    if error.at is None:
        return errors.BadRequest(str(error), param="messages")
    if turns[error.at].get("tool_calls") and not turns[error.at]["content"]:
        return of_field(f"messages[{error.at}].tool_calls", "set", f"{error}; leave them out")
    return of_field(f"messages[{error.at}].role", turns[error.at]["role"], f"{error}; write its words as the user's")


def check_roles(roles: Sequence[str], known: Collection[str]) -> None:
    """Refuse a role that does not exist: templates drop it in silence, or write it out as a control token."""
    for at, role in enumerate(roles):
        if role not in known:
            raise of_field(f"messages[{at}].role", role, f"the roles are {', '.join(known)}")


def check_sampling(sampling: Sampling, info: ModelInfo, *, within: str = "") -> Sampling:
    """`sampling`, or a refusal of the first field that this engine does not honour."""
    neutral = {"typical_p": 1, "repetition_penalty": 1, "length_penalty": 1, "num_beams": 1, "early_stopping": False}
    always = ("do_sample", "temperature", "top_k", "top_p", "seed")
    for field in dataclasses.fields(sampling):
        value = getattr(sampling, field.name)
        if value and value != neutral.get(field.name) and field.name not in always:
            check_feature(field.name, value, info, path=f"{within}{field.name}")
    return sampling


def check_feature(feature: str, value: object, info: ModelInfo, *, path: str = "") -> None:
    """Refuse what is asked for (all but None) if this engine does not honour it."""
    if value is not None and feature not in info.features:
        raise of_field(path or feature, value, f"this engine ({info.kind}) does not support it; leave it out")


def shown(value: object) -> str:
    """A value as JSON, cut."""
    text = ""
    try:
        for part in json.JSONEncoder(ensure_ascii=False).iterencode(value):
            text += part
            if len(text) > SHOWN:
                return f"{text[:SHOWN]}..."
    except (RecursionError, TypeError, ValueError):
        return f"too deep to show ({type(value).__name__})"
    return text


def written(path: Path) -> str:
    """`messages[0].content`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def _path(found: Mapping[str, Any], body: Any) -> Path:
    """Where in the body: pydantic names the branches of unions too, which are keys of nothing that was sent."""
    path = []
    for part in found["loc"][1:]:
        if isinstance(body, list if isinstance(part, int) else dict) and (isinstance(part, int) or part in body):
            body = body[part]
            path.append(part)
    return (*path, *found["loc"][1:][-1:]) if found["type"] == "missing" else tuple(path)


def _wanted(found: Mapping[str, Any]) -> str:
    kind = found["type"]
    words = MUST_BE.get(kind) or MUST_BE.get(kind.partition("_")[0])
    bounds = {name: f"{bound:g}" if isinstance(bound, float) else bound for name, bound in found.get("ctx", {}).items()}
    return words.format_map(bounds) if words else str(found["msg"])
