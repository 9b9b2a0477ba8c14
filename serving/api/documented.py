"""What the OpenAPI document says beside fields: the shapes of errors, by interface, and examples of bodies."""

from typing import Any

import pydantic

HELLO = [{"role": "user", "content": "YOUR QUESTION HERE"}]


def like(*bodies: dict[str, Any]) -> pydantic.ConfigDict:
    """A model of bodies of which these are examples."""
    return pydantic.ConfigDict(json_schema_extra={"examples": [*bodies]})


class Problem(pydantic.BaseModel):
    """What went wrong, as OpenAI's clients read it."""

    message: str
    type: str
    param: str | None
    """The field, as a path."""
    code: str | None


class OpenAIError(pydantic.BaseModel):
    """An error of the OpenAI API."""

    error: Problem


class Detail(pydantic.BaseModel):
    """An error of /chat."""

    detail: str


STATUSES = {
    400: "The request cannot be honoured: the message names the field, its value and the way out.",
    401: "The key is missing or wrong.",
    404: "No such model.",
    413: "The body is too long.",
    415: "The body is not called JSON.",
    429: "The queue is full; Retry-After says when to come again.",
    500: "The engine failed at this request.",
    503: "Starting, draining, or no turn came in time.",
    504: "The deadline came first.",
}

Responses = dict[int | str, dict[str, Any]]

# "default" keeps FastAPI from promising its own 422, which no path answers.
OPENAI: Responses = {
    code: {"model": OpenAIError, "description": told} for code, told in (STATUSES | {"default": "An error."}).items()
}
KAITO: Responses = {code: each | {"model": Detail} for code, each in OPENAI.items()}
EVENT = {"type": "object", "properties": {"data": {"type": "string"}}, "required": ["data"]}
STREAMED: Responses = {200: {"content": {"text/event-stream": {"schema": EVENT}}}}
"""Beside the JSON: `data:` events with chunks, an `error` event where it fails, `data: [DONE]` at the end."""
