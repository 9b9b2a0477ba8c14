"""Prompts and conversations to tokens, with the model's chat template or an adapter's.

`Tokenizer` is what this needs of a checkpoint's tokenizer; `serving.text.checkpoint` makes one. Knows neither engines
nor HTTP: what a client did wrong is a `TextRefused` with the reason.
"""

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Protocol

import tokenizers

Message = Mapping[str, str]

MARK = re.compile(r"<[^<>\s]{1,40}>|\[/?[A-Z_]{2,20}\]")
"""What the turns of templates are marked with: `<|user|>`, `<start_of_turn>`, `[INST]`."""

PROBE = "a few words of a user"
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

    def render(self, messages: Sequence[Message], template: str) -> str:
        """A conversation as text, up to where the assistant's answer begins; raises TextRefused."""

    def encode_chat(self, messages: Sequence[Message], template: str) -> list[int]:
        """A conversation as tokens; control tokens that users wrote are ordinary text. Raises TextRefused."""


class Chat:
    """Turns what clients send into tokens."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self._marks = functools.lru_cache(maxsize=64)(self._find_marks)
        self._folds = functools.lru_cache(maxsize=256)(self._try_folding)

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

    def conversation(self, messages: Sequence[Message], template: str | None) -> list[int]:
        """`messages` as the template writes them; raises TextRefused for one that it would drop in silence.

        A developer's are the system's unless the template knows developers; the system's are folded, as in tuning, if
        the template has no place for them.
        """
        if not template:
            raise TextRefused("messages need a chat template and this model has none; send a prompt instead")
        _refuse_half_characters("".join(message["content"] for message in messages))
        if "developer" not in template:
            messages = [{**each, "role": "system"} if each["role"] == "developer" else each for each in messages]
        if self._folds(tuple(message["role"] for message in messages), template):
            messages = _without_system(messages)
        return self.tokenizer.encode_chat(messages, template)

    def _find_marks(self, template: str) -> frozenset[str]:
        """The special tokens, and what the template puts around a user's words."""
        rendered = self.tokenizer.render([{"role": "user", "content": PROBE}], template)
        return self.tokenizer.special_tokens | frozenset(MARK.findall(rendered.replace(PROBE, "\n")))

    def _try_folding(self, roles: tuple[str, ...], template: str) -> bool:
        """Whether the system's words must stand in a user's turn: templates refuse them, or drop them in silence."""
        witnesses: list[Message] = [{"role": role, "content": WITNESS.format(at)} for at, role in enumerate(roles)]
        if "system" in roles:
            try:
                self._refuse_lost(roles, witnesses, template)
            except TextRefused:
                self._refuse_lost(roles, _without_system(witnesses), template)
                return True
            return False
        self._refuse_lost(roles, witnesses, template)
        return False

    def _refuse_lost(self, roles: tuple[str, ...], witnesses: Sequence[Message], template: str) -> None:
        rendered = self.tokenizer.render(witnesses, template)
        for at, role in enumerate(roles):
            if WITNESS.format(at) not in rendered:
                raise TextRefused(f"this model's chat template leaves messages of the role {role} out", at=at)


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
