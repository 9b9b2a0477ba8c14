"""Answers in a given form, as clients of OpenAI and vLLM ask for them: `response_format`, `guided_json` and others."""

import json
from collections.abc import Callable
from typing import Annotated, Any, Literal, NamedTuple

import pydantic

from serving.api import refusals
from serving.service import Grammar, Grammars
from serving.text.chat import TextRefused


class JsonSchema(pydantic.BaseModel):
    """The schema of a `response_format`; it is followed to the letter, strict or not."""

    model_config = pydantic.ConfigDict(populate_by_name=True)

    name: str | None = None
    description: str | None = None
    schema_: Annotated[dict[str, Any], pydantic.Field(alias="schema")]
    strict: bool | None = None


class ResponseFormat(pydantic.BaseModel):
    """`response_format`."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class Structured(pydantic.BaseModel):
    """`structured_outputs`, vLLM's: one of these."""

    model_config = pydantic.ConfigDict(extra="allow")

    json_: Annotated[str | dict[str, Any] | None, pydantic.Field(alias="json")] = None
    json_object: bool | None = None
    regex: Annotated[str, pydantic.Field(max_length=10_000)] | None = None
    choice: Annotated[refusals.Many[str], pydantic.Field(min_length=1, max_length=1000)] | None = None


class Form(NamedTuple):
    """A form that is asked for."""

    path: str
    """The field that asks, for refusals."""
    make: Callable[[Grammars], Grammar]


def of_schema(path: str, schema: Any) -> Form:
    """JSON after a schema."""
    return Form(path, lambda grammars: grammars.json(schema))


def wanted(
    response_format: ResponseFormat | None, guided_json: str | dict[str, Any] | None, structured: Structured | None
) -> Form | None:
    """The one form that a request asks for, if any."""
    forms = [form for form in (_of_format(response_format), _of_guided(guided_json)) if form]
    forms += _of_structured(structured) if structured else []
    if len(forms) > 1:
        paths = " and ".join(form.path for form in forms)
        raise refusals.of_field(forms[1].path, "set", f"an answer has one form and {paths} ask for two; keep one")
    return forms[0] if forms else None


def compiled(form: Form, grammars: Grammars) -> Grammar:
    """The form as a grammar; takes up to a second, beside the event loop."""
    try:
        return form.make(grammars)
    except TextRefused as error:
        raise refusals.of_field(form.path, "set", str(error)) from error


def _of_format(given: ResponseFormat | None) -> Form | None:
    if given is None or given.type == "text":
        return None
    if given.type == "json_object":
        return of_schema("response_format", {"type": "object"})
    if given.json_schema is None:
        raise refusals.of_field("response_format.json_schema", None, 'it is required where the type is "json_schema"')
    return of_schema("response_format.json_schema.schema", given.json_schema.schema_)


def _of_guided(given: str | dict[str, Any] | None) -> Form | None:
    return None if given is None else of_schema("guided_json", _read("guided_json", given))


def _of_structured(given: Structured) -> list[Form]:
    within, forms = "structured_outputs.", list[Form]()
    regex, choice = given.regex, given.choice
    if given.json_ is not None:
        forms.append(of_schema(f"{within}json", _read(f"{within}json", given.json_)))
    if given.json_object:
        forms.append(of_schema(f"{within}json_object", {"type": "object"}))
    if regex is not None:
        forms.append(Form(f"{within}regex", lambda grammars: grammars.regex(regex)))
    if choice is not None:
        forms.append(Form(f"{within}choice", lambda grammars: grammars.choice(choice)))
    return forms


def _read(path: str, given: str | dict[str, Any]) -> Any:
    """A schema, as an object or as its text."""
    if not isinstance(given, str):
        return given
    try:
        return json.loads(given)
    except (ValueError, RecursionError) as error:
        raise refusals.of_field(path, given, "it must be a JSON schema, as an object or as its text") from error
