"""What a row says: a conversation or a plain text, by the first shape that fits. Knows no files and no tokens."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from tuning.training_config import DatasetConfig

Row = Mapping[str, Any]
Message = dict[str, Any]
Example = list[Message] | str
"""A conversation of `role`, `content` and perhaps `tool_calls`, a thought and `weight`, or a text."""
Tools = Sequence[Mapping[str, Any]]
"""What the assistant may call, as JSON schemas."""

ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "tool": "tool",
}

PROMPTS = ("prompt", "instruction", "question")
CONTEXTS = ("context", "input")
THOUGHTS = ("reasoning_content", "thinking", "reasoning")
"""What an assistant's message may hold beside its content, by the names that chat templates know."""
RESPONSES = ("completion", "response", "output", "answer")


def known(columns: DatasetConfig) -> frozenset[str]:
    """Columns that some shape reads."""
    named = (value for key, value in columns.model_dump().items() if key.endswith("_column") and value)
    return frozenset([*PROMPTS, *CONTEXTS, *RESPONSES, "messages", "conversations", "text", "tools", *named])


def parsed(line: bytes) -> Any:
    """The value, or its error as a value."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        return ValueError(f"not JSON: {error}")


def example(row: Row | ValueError, columns: DatasetConfig) -> Example:
    """What the row says, by the first shape that fits; ValueError says why it cannot be used."""
    if isinstance(row, ValueError):
        raise row
    if not isinstance(row, Mapping):
        raise ValueError(f"a row is {type(row).__name__}, not an object with columns")  # noqa: TRY004
    for shape in _SHAPES:
        if (found := shape(row, columns)) is not None:
            return found
    raise ValueError(
        f"columns {', '.join(map(str, row))[:200]} are no known shape; have messages, conversations, prompt and "
        "completion, instruction and response, or text, or name the columns in DatasetConfig"
    )


def _chat(row: Row, columns: DatasetConfig) -> Example | None:
    if columns.messages_column:
        return _messages(_value(row, columns.messages_column))
    for column in ("messages", "conversations"):
        if not _response(row, columns) and row.get(column):
            return _messages(row[column])
    return None


def _response(row: Row, columns: DatasetConfig) -> str | None:
    """The response column that is asked for; `text` is KAITO's default, and asks for nothing where there is none."""
    asked = columns.response_column
    return asked if asked != "text" or "text" in row else None


def _pair(row: Row, columns: DatasetConfig) -> Example | None:
    """A prompt, perhaps with context, and the answer to it."""
    prompt = columns.prompt_column or columns.instruction_column or _first(row, PROMPTS)
    response = _response(row, columns) or _first(row, RESPONSES)
    if prompt is None or response is None:
        return None
    asked, answer = _value(row, prompt), _value(row, response)
    if isinstance(asked, list) and isinstance(answer, list):
        return _messages([*asked, *answer])
    context = columns.context_column or _first(row, CONTEXTS)
    parts = [_text(asked, prompt), _text(row.get(context) or "", context) if context else ""]
    question = "\n\n".join(part for part in parts if part.strip())
    return _messages([{"role": "user", "content": question}, {"role": "assistant", "content": _text(answer, response)}])


def _plain(row: Row, columns: DatasetConfig) -> Example | None:
    column = _response(row, columns) or "text"
    if column not in row and column == "text":
        return None
    text = _text(_value(row, column), column)
    if not text.strip():
        raise ValueError(f"column {column} is empty")
    return text


_SHAPES: tuple[Callable[[Row, DatasetConfig], Example | None], ...] = (_chat, _pair, _plain)


def _first(row: Row, names: Iterable[str]) -> str | None:
    return next((name for name in names if row.get(name) is not None), None)


def _value(row: Row, column: str) -> Any:
    if column not in row:
        raise ValueError(f"there is no column {column}; the columns are {', '.join(map(str, row))[:200]}")
    return row[column]


def _messages(value: Any) -> list[Message]:
    """OpenAI's `role` and `content`, or ShareGPT's `from` and `value`; with an answer to learn."""
    if isinstance(value, str):  # how a CSV file holds a conversation
        value = parsed(value.encode())
    if not isinstance(value, list):
        raise ValueError(f"the conversation is {type(value).__name__}, not a list of messages")  # noqa: TRY004
    messages = [_message(message) for message in value]
    said = [each for each in messages if each["role"] == "assistant"]
    if not any(each["content"].strip() or each.get("tool_calls") for each in said):
        raise ValueError("the conversation has no answer: no assistant message with text")
    if all(each.get("weight") == 0 for each in said):
        raise ValueError("the conversation has no answer to learn: every assistant message has weight 0")
    return messages


def _message(message: Any) -> Message:
    if not isinstance(message, Mapping):
        raise ValueError(f"a message is {type(message).__name__}, not an object with role and content")  # noqa: TRY004
    role = message.get("role", message.get("from"))
    if role not in ROLES:
        raise ValueError(f"a message has the unknown role {role!r}; use system, user or assistant")
    content, calls = message.get("content", message.get("value")), _calls(message.get("tool_calls"))
    found: Message = {"role": ROLES[role], "content": _text("" if calls and content is None else content, "content")}
    more = {"tool_calls": calls, **{name: message.get(name) for name in ("name", "tool_call_id")}}
    if found["role"] == "assistant":
        more |= {name: _text(message[name], name) for name in THOUGHTS if message.get(name)}
        found |= _weight(message.get("weight"))
    return found | {name: value for name, value in more.items() if value}


def _weight(value: Any) -> Message:
    """OpenAI's: 0 is an answer that shall not be learned; 1 and none say what goes without saying."""
    if value is None or value != value:  # noqa: PLR0124 -- NaN, which a table has for none
        return {}
    if isinstance(value, bool) or value not in (0, 1):
        raise ValueError(f"an assistant message has the weight {value!r}; 0 is not to be learned, 1 is")
    return {} if value else {"weight": 0}


def _calls(value: Any) -> list[Any]:
    """What the assistant calls; arguments as an object, which templates write as JSON, or as XML."""
    found = []
    for call in _listed(value, "tool_calls"):
        function = call.get("function", call) if isinstance(call, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise ValueError("tool_calls has a call without function and name")  # noqa: TRY004
        given = function.get("arguments") or {}
        arguments = parsed(given.encode()) if isinstance(given, str) else given
        if not isinstance(arguments, Mapping):
            raise ValueError(f"the arguments of a call of {function['name'][:60]!r} are no JSON object")  # noqa: TRY004
        named = {"type": "function", "function": {"name": function["name"], "arguments": _without_none(arguments)}}
        found.append(named | ({"id": call["id"]} if call.get("id") else {}))
    return found


def tools(row: Any) -> Tools:
    """The row's tools: a list, or its JSON."""
    found = _listed(row.get("tools"), "tools")
    if not all(isinstance(each, Mapping) for each in found):
        raise ValueError("tools has an entry that is no object; give JSON schemas")
    return tuple(_without_none(each) for each in found)


def _listed(value: Any, column: str) -> Sequence[Any]:
    if isinstance(value, str) and value.strip():  # how most sets keep what differs from row to row
        value = parsed(value.encode())
    if value and not isinstance(value, list):
        raise ValueError(f"{column} is {type(value).__name__}, not a list")
    return value or ()


def _without_none(value: Any) -> Any:
    """Without the members that are None: a table gives each row those of all others."""
    if isinstance(value, Mapping):
        return {key: _without_none(each) for key, each in value.items() if each is not None}
    return [_without_none(each) for each in value] if isinstance(value, list) else value


def _text(value: Any, column: str) -> str:
    if isinstance(value, list) and all(isinstance(part, Mapping) and part.get("type") == "text" for part in value):
        value = "".join(str(part.get("text") or "") for part in value)
    if isinstance(value, (int, float)):  # a label, a number as an answer
        value = str(value)
    if not isinstance(value, str):
        raise ValueError(f"{column} is {type(value).__name__}, not text")  # noqa: TRY004
    try:
        value.encode()
    except UnicodeEncodeError as error:  # JSON can write one, as scraped data does; no tokenizer reads it
        raise ValueError(f"{column} has half of a character, {value[error.start]!a}") from error
    return value
