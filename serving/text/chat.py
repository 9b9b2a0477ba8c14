"""Prompts and conversations to tokens, with the model's chat template or an adapter's.

`Tokenizer` is what this needs of a checkpoint's tokenizer; `serving.text.checkpoint` makes one. Knows neither engines
nor HTTP: what a client did wrong is a `TextRefused` with the reason.
"""

import functools
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import tokenizers

Message = Mapping[str, Any]
"""`role`, `content` (text), and what belongs to tools: `tool_calls` with their arguments as objects, `tool_call_id`."""
Tools = Sequence[Mapping[str, Any]]
"""As OpenAI describes them."""

MARK = re.compile(r"<[^<>\s]{1,40}>|\[/?[A-Z_]{2,20}\]")
"""What the turns of templates are marked with: `<|user|>`, `<start_of_turn>`, `[INST]`."""

PROBE = "a few words of a user"
TOOLS_IN_MESSAGE = re.compile(r"""message(\.tools|\[['"]tools['"]\])""")
"""Of templates that look for the tools in the system's message (Phi-4-mini)."""
WITNESS = "Zanzibar-7351-{}."
"""What stands in a message's place to see whether it comes through; no template writes this by itself."""


class TextRefused(ValueError):
    """The text cannot be turned into tokens; the message says why, and `at` which of the messages is to blame."""

    def __init__(self, message: str, *, at: int | None = None) -> None:
        super().__init__(message)
        self.at = at


class Tokenizer(Protocol):
    """A checkpoint's tokenizer."""

    @property
    def backend(self) -> tokenizers.Tokenizer:
        """For decoding."""

    @property
    def template(self) -> str | None:
        """The checkpoint's own chat template, in Jinja."""

    @property
    def special_tokens(self) -> frozenset[str]:
        """Tokens that are no text."""

    @property
    def stop_ids(self) -> frozenset[int]:
        """Its own end of text; the model's generation config has more."""

    def encode(self, text: str) -> list[int]:
        """Raw text, special tokens in it understood, with the begin token that the model expects."""

    def render(self, messages: Sequence[Message], template: str, tools: Tools = ()) -> str:
        """A conversation as text, up to where the assistant's answer begins; raises TextRefused."""

    def encode_chat(self, messages: Sequence[Message], template: str, tools: Tools = ()) -> list[int]:
        """A conversation as tokens; control tokens that users wrote are ordinary text. Raises TextRefused."""


class Chat:
    """Turns what clients send into tokens."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self._marks = functools.lru_cache(maxsize=64)(self._find_marks)
        self._folds = functools.lru_cache(maxsize=256)(self._fold_roles)

    def raw(self, text: str) -> list[int]:
        """Text as it is."""
        _refuse_half_characters(text)
        return self.tokenizer.encode(text)

    def prompt(self, text: str, template: str | None) -> list[int]:
        """A `prompt`: one user turn, or raw if it has the template's control tokens itself or there is none."""
        if template is None or self.is_raw(text, template):
            return self.raw(text)
        return self.conversation([{"role": "user", "content": text}], template)

    def is_raw(self, text: str, template: str | None) -> bool:
        """Whether `prompt` leaves this text as it is."""
        return not template or any(mark in text for mark in self._marks(template))

    def conversation(self, messages: Sequence[Message], template: str | None, tools: Tools = ()) -> list[int]:
        """`messages` as the template writes them; raises TextRefused for one that it would drop in silence.

        A developer's are the system's unless the template knows developers; the system's are folded, as in tuning, if
        the template has no place for them.
        """
        if not template:
            raise TextRefused("messages need a chat template and this model has none; send a prompt instead")
        try:
            return self._conversation(messages, template, tools)
        except RecursionError as error:
            raise TextRefused("the tools or their calls are nested too deep; flatten them") from error

    def _conversation(self, messages: Sequence[Message], template: str, tools: Tools) -> list[int]:
        _refuse_half_characters(json.dumps([*messages, *tools], ensure_ascii=False))
        if "developer" not in template:
            messages = [{**each, "role": "system"} if each["role"] == "developer" else each for each in messages]
        if tools and TOOLS_IN_MESSAGE.search(template):
            messages, tools = _with_tools(messages, tools), ()
        if self._folded(messages, template, tools):
            messages = _without_system(messages)
        return self.tokenizer.encode_chat(messages, template, tools)

    def _folded(self, messages: Sequence[Message], template: str, tools: Tools) -> bool:
        """What depends on roles alone is asked once; where there are tools, templates look at more."""
        if not tools and all(message.keys() <= {"role", "content"} for message in messages):
            return self._folds(tuple(message["role"] for message in messages), template)
        return self._try_folding(messages, template, tools)

    def _find_marks(self, template: str) -> frozenset[str]:
        """The special tokens, and what the template puts around a user's words."""
        rendered = self.tokenizer.render([{"role": "user", "content": PROBE}], template)
        return self.tokenizer.special_tokens | frozenset(MARK.findall(rendered.replace(PROBE, "\n")))

    def _fold_roles(self, roles: tuple[str, ...], template: str) -> bool:
        return self._try_folding([{"role": role, "content": "x"} for role in roles], template)

    def _try_folding(self, messages: Sequence[Message], template: str, tools: Tools = ()) -> bool:
        """Whether the system's words must stand in a user's turn: templates refuse them, or drop them in silence."""
        witnesses = [
            {**message, "content": WITNESS.format(at) if message["content"] else ""}
            for at, message in enumerate(messages)
        ]
        if any(message["role"] == "system" for message in messages):
            try:
                self._refuse_lost(witnesses, witnesses, template, tools)
            except TextRefused:
                self._refuse_lost(witnesses, _without_system(witnesses), template, tools)
                return True
            return False
        self._refuse_lost(witnesses, witnesses, template, tools)
        return False

    def _refuse_lost(
        self, given: Sequence[Message], written: Sequence[Message], template: str, tools: Tools = ()
    ) -> None:
        """Raise for a message of `given` that is not to be seen in the text of `written`."""
        rendered = self.tokenizer.render(written, template, tools)
        for at, message in enumerate(given):
            names = [call["function"]["name"] for call in message.get("tool_calls", ())]
            if message["content"] not in rendered or not all(name in rendered for name in names):
                what = f"messages of the role {message['role']}" if message["content"] else "calls of tools"
                raise TextRefused(f"this model's chat template leaves {what} out", at=at)


def _with_tools(messages: Sequence[Message], tools: Tools) -> Sequence[Message]:
    told = json.dumps([tool["function"] for tool in tools], ensure_ascii=False)
    at = next((at for at, message in enumerate(messages) if message["role"] == "system"), None)
    if at is None:
        return [{"role": "system", "content": "", "tools": told}, *messages]
    return [*messages[:at], {**messages[at], "tools": told}, *messages[at + 1 :]]


def _without_system(messages: Sequence[Message]) -> list[Message]:
    """The system's words at the head of the first user message, or as one where the user says nothing."""
    said = "\n\n".join(message["content"] for message in messages if message["role"] == "system")
    rest = [message for message in messages if message["role"] != "system"]
    if not said:
        return rest
    first = next((at for at, message in enumerate(rest) if message["role"] == "user"), None)
    if first is None:
        return [{"role": "user", "content": said}, *rest]
    return [*rest[:first], {**rest[first], "content": f"{said}\n\n{rest[first]['content']}"}, *rest[first + 1 :]]


def _refuse_half_characters(text: str) -> None:
    """JSON can say half of a surrogate pair; no tokenizer can read it."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise TextRefused(f"the text is no Unicode: {error.reason} at character {error.start}") from error
