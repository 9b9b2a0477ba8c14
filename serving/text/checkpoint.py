"""A checkpoint's tokenizer, through transformers: the same object that tuning used, so the same tokens.

The one module of the text side that imports transformers (and with it torch).
"""

from collections.abc import Sequence
from pathlib import Path

import jinja2
import transformers

from serving import errors
from serving.text.chat import Message, TextRefused, Tools


class CheckpointTokenizer:
    """A `serving.text.chat.Tokenizer` over the files of a checkpoint."""

    def __init__(self, folder: Path) -> None:
        try:
            self._own = transformers.AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False, use_fast=True
            )
            self.backend = self._own.backend_tokenizer
        except (OSError, ValueError, AttributeError) as error:
            raise errors.BadModel(f"the tokenizer of the checkpoint cannot be used: {error}") from error
        own = self._own.chat_template
        self.template: str | None = own.get("default") if isinstance(own, dict) else own
        added = self._own.added_tokens_decoder.values()
        self.special_tokens = frozenset(str(token.content) for token in added if token.special)

        end = self._own.eos_token_id
        self.stop_ids: frozenset[int] = frozenset() if end is None else frozenset([end])

    def encode(self, text: str) -> list[int]:
        """See `Tokenizer.encode`."""
        tokens: list[int] = self._own(text)["input_ids"]
        begin = self._own.bos_token_id
        written = begin is not None and tokens[:2] == [begin, begin] and text.startswith(self._own.bos_token)
        return tokens[1:] if written else tokens

    def render(self, messages: Sequence[Message], template: str, tools: Tools = ()) -> str:
        """See `Tokenizer.render`."""
        try:
            rendered: str = self._own.apply_chat_template(
                list(messages),
                tools=list(tools) or None,
                chat_template=template,
                add_generation_prompt=True,
                tokenize=False,
            )
        except (jinja2.TemplateError, ValueError, TypeError) as error:
            raise TextRefused(f"the chat template does not take these messages: {error}") from error
        return rendered

    def encode_chat(self, messages: Sequence[Message], template: str, tools: Tools = ()) -> list[int]:
        """See `Tokenizer.encode_chat`."""
        try:
            tokens: list[int] = self._own.apply_chat_template(
                list(messages),
                tools=list(tools) or None,
                chat_template=template,
                add_generation_prompt=True,
                return_dict=False,
                sanitize_control_tokens=True,
            )
        except (jinja2.TemplateError, ValueError, TypeError) as error:
            raise TextRefused(f"the chat template does not take these messages: {error}") from error
        return tokens
