"""Tools in OpenAI's requests: what is offered, which must be called, and calls that come back as history."""

import json
from typing import Annotated, Any, Literal

import pydantic

from serving.api import refusals
from serving.text.chat import Message, Tools

Name = Annotated[str, pydantic.Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
Choice = Literal["none", "auto", "required"]


class Function(pydantic.BaseModel):
    """What a tool is called and takes; templates show all of it to the model."""

    model_config = pydantic.ConfigDict(extra="allow")

    name: Name
    description: str | None = None
    parameters: dict[str, Any] | None = None


class Tool(pydantic.BaseModel):
    """One of `tools`."""

    type: Literal["function"]
    function: Function


class Named(pydantic.BaseModel):
    """The name of a function."""

    name: str


class ToolChoice(pydantic.BaseModel):
    """`tool_choice` that names a tool."""

    type: Literal["function"]
    function: Named


class Called(pydantic.BaseModel):
    """A call that an assistant made."""

    name: str
    arguments: str


class ToolCall(pydantic.BaseModel):
    """One of a message's `tool_calls`."""

    id: str
    type: Literal["function"] = "function"
    function: Called

    def told(self, path: str) -> dict[str, Any]:
        """As templates take it: with the arguments as an object."""
        try:
            arguments = json.loads(self.function.arguments or "{}")
        except ValueError:
            arguments = None
        if not isinstance(arguments, dict):
            field = f"{path}.function.arguments"
            raise refusals.of_field(field, self.function.arguments, "it must be a JSON object, written as a string")
        return {"id": self.id, "type": self.type, "function": {"name": self.function.name, "arguments": arguments}}


def offered(tools: list[Tool], choice: Choice | ToolChoice | None) -> Tools:
    """The tools that the model is told of; refuses a choice that they do not have."""
    known = [tool.function.name for tool in tools]
    if choice == "none":
        return ()
    if isinstance(choice, ToolChoice) and choice.function.name not in known:
        remedy = f"the tools are {', '.join(known)}" if known else "there are no tools to choose from; send tools"
        raise refusals.of_field("tool_choice.function.name", choice.function.name, remedy)
    if choice == "required" and not tools:
        raise refusals.of_field("tool_choice", choice, "there are no tools to choose from; send tools")
    if len(set(known)) < len(known):
        raise refusals.of_field("tools", known, "two of them have the same name")
    return [tool.model_dump(exclude_none=True) for tool in tools]


def forced_schema(tools: Tools, choice: ToolChoice | Choice | None, *, several: bool) -> dict[str, Any] | None:
    """What the answer must be where a call is required: a list of calls and nothing else. None: it is not."""
    if choice != "required" and not isinstance(choice, ToolChoice):
        return None
    named = choice.function.name if isinstance(choice, ToolChoice) else None
    calls = [_call_schema(tool["function"]) for tool in tools if named in (None, tool["function"]["name"])]
    most = {} if several and named is None else {"maxItems": 1}
    return {"type": "array", "minItems": 1, "items": {"anyOf": calls}} | most


def _call_schema(function: Message) -> dict[str, Any]:
    arguments = function.get("parameters") or {"type": "object"}
    return {
        "type": "object",
        "properties": {"name": {"const": function["name"]}, "arguments": arguments},
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }
