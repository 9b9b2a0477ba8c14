"""What the OpenAPI document says of errors: their shapes, one for each interface."""

from typing import Any

import pydantic


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
STREAMED: Responses = {200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}}
"""Beside the JSON: `data:` events with chunks, an `error` event where it fails, `data: [DONE]` at the end."""
