"""A tokenizer: what `masks` asks of one, and one that is read from a model's files without transformers.

The check has no transformers; the run has. Both have to come to the same ids and labels, which
`tests/tuning/data/test_tokenizer.py` holds them to.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from tuning.data.template import Template

FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")
"""All that is read here."""
Files = Mapping[str, bytes]
"""Those of FILES that a model has, by name."""
_NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_EXTRA = ("extra_special_tokens", "additional_special_tokens")


class Tokenizer(Protocol):
    """What `masks.Encoder` asks; transformers' fast tokenizers are such."""

    chat_template: Any
    is_fast: bool

    @property
    def backend_tokenizer(self) -> Any: ...  # noqa: D102 -- of the library `tokenizers`
    @property
    def eos_token(self) -> str | None: ...  # noqa: D102
    @property
    def eos_token_id(self) -> int | None: ...  # noqa: D102
    @property
    def all_special_ids(self) -> list[int]: ...  # noqa: D102
    @property
    def added_tokens_decoder(self) -> Mapping[int, Any]: ...  # noqa: D102

    def __call__(self, text: str) -> Mapping[str, Any]: ...  # noqa: D102
    def convert_ids_to_tokens(self, ids: Any) -> list[str]: ...  # noqa: D102
    def decode(self, ids: Any) -> str: ...  # noqa: D102
    def apply_chat_template(self, messages: Any, **options: Any) -> Any: ...  # noqa: D102


class Unreadable(ValueError):
    """The model's files hold no tokenizer that can be read without transformers."""


def read(folder: Path) -> Files:
    """Those of FILES that there are in a folder."""
    return {name: (folder / name).read_bytes() for name in FILES if (folder / name).is_file()}


class Light:
    """A `Tokenizer` out of a model's FILES."""

    is_fast = True

    def __init__(self, files: Files) -> None:
        """Raises Unreadable."""
        import tokenizers  # noqa: PLC0415 -- the operator reads configs without it

        settings = _settings(files)
        try:
            self.backend_tokenizer = tokenizers.Tokenizer.from_buffer(files.get("tokenizer.json", b""))
        except Exception as error:  # the library raises nothing narrower
            raise Unreadable(f"tokenizer.json cannot be read: {error}") from error
        self.special_tokens_map = {name: text for name in _NAMED if (text := _text(settings.get(name)))}
        self._extra: list[str] = []
        for key in _EXTRA:
            self._add_extra(settings.get(key))
        self.eos_token = self.special_tokens_map.get("eos_token")
        self._add_missing()
        self.chat_template = _template(files, settings)
        self._compiled: dict[str, Template] = {}

    def _add_extra(self, given: Any) -> None:
        """More special tokens: a list, or by names that templates know them by."""
        if isinstance(given, dict):
            self.special_tokens_map |= {name: text for name, value in given.items() if (text := _text(value))}
        elif isinstance(given, list) and not self._extra:
            self._extra = [text for value in given if (text := _text(value))]

    def _add_missing(self) -> None:
        """What is called special is so, whether tokenizer.json says it or not."""
        there = {str(token.content) for token in self.added_tokens_decoder.values()}
        wanted = [*self.special_tokens_map.values(), *self._extra]
        if missing := [text for text in dict.fromkeys(wanted) if text not in there]:
            self.backend_tokenizer.add_special_tokens(missing)

    @property
    def eos_token_id(self) -> int | None:
        """None where the model has no such token."""
        return self.backend_tokenizer.token_to_id(self.eos_token) if self.eos_token else None

    @property
    def all_special_ids(self) -> list[int]:
        """Of what the settings call special."""
        texts = dict.fromkeys([*self.special_tokens_map.values(), *self._extra])
        ids = (self.backend_tokenizer.token_to_id(text) for text in texts)
        return [token for token in ids if token is not None]

    @property
    def added_tokens_decoder(self) -> Mapping[int, Any]:
        """Tokens beside the vocabulary, by id."""
        found: Mapping[int, Any] = self.backend_tokenizer.get_added_tokens_decoder()
        return found

    def __call__(self, text: str) -> Mapping[str, Any]:
        """Ids of a plain text, with the tokens that tokenizer.json puts at its ends."""
        return {"input_ids": self.backend_tokenizer.encode(text).ids}

    def convert_ids_to_tokens(self, ids: Sequence[int]) -> list[str]:
        """As the vocabulary writes them."""
        return [str(self.backend_tokenizer.id_to_token(token)) for token in ids]

    def decode(self, ids: Sequence[int]) -> str:
        """The text, special tokens in it."""
        return str(self.backend_tokenizer.decode(list(ids), skip_special_tokens=False))

    def apply_chat_template(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Any = None,
        tokenize: bool = True,
        add_generation_prompt: bool = False,
        **_options: Any,
    ) -> Any:
        """The text, or with `tokenize` its ids and which of them the template marks as the assistant's."""
        template = self._template(tools)
        if not tokenize:
            return template.render(messages, tools, prompt=add_generation_prompt, **self.special_tokens_map)
        text, spans = template.spans(messages, tools, **self.special_tokens_map)
        found = self.backend_tokenizer.encode(text, add_special_tokens=False)
        marks = [0] * len(found.ids)
        for start, end in spans:
            first, last = found.char_to_token(start), found.char_to_token(end - 1)
            if first is None:
                break
            for index in range(first, last + 1 if last else len(marks)):
                marks[index] = 1
        return {"input_ids": found.ids, "assistant_masks": marks}

    def see_template(self) -> None:
        """Raise ValueError unless the chat template can be compiled."""
        self._template(None)

    def _template(self, tools: Any) -> Template:
        text = self.chat_template
        if isinstance(text, dict):
            text = text.get("tool_use" if tools and "tool_use" in text else "default")
        if not isinstance(text, str):
            raise ValueError("the model has no chat template of the name default")  # noqa: TRY004
        if text not in self._compiled:
            self._compiled[text] = Template(text)
        return self._compiled[text]


def _settings(files: Files) -> dict[str, Any]:
    """tokenizer_config.json, filled up with what only special_tokens_map.json says."""
    found: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        try:
            said = json.loads(files.get(name, b"{}"))
        except (ValueError, RecursionError) as error:
            raise Unreadable(f"{name} cannot be read: {error}") from error
        if not isinstance(said, dict):
            raise Unreadable(f"{name} is no JSON object")
        found |= {key: value for key, value in said.items() if value is not None}
    return found


def _template(files: Files, settings: Mapping[str, Any]) -> Any:
    if own := files.get("chat_template.jinja"):
        return own.decode(errors="replace")
    given = settings.get("chat_template")
    return {each["name"]: each["template"] for each in given} if isinstance(given, list) else given


def _text(token: Any) -> str:
    """Of a token that is written as text, or as an object with it."""
    return str(token.get("content", "")) if isinstance(token, dict) else str(token or "")
