"""One entry of an answer's `choices`, whole or piece by piece: text, calls of tools, log probabilities.

A choice is fed with the pieces of its answer; what each of them adds can be sent at once, and the whole is told at the
end. Knows no engines.
"""

import functools
import re
import secrets
import string
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import tokenizers

from serving.sequences import Piece
from serving.text.tools import Call, Parser

Entry = dict[str, Any]
"""One of `choices`."""

PLAIN = (*range(33, 127), *range(161, 173), *range(174, 256))
BYTES = {chr(byte): byte for byte in PLAIN} | {
    chr(256 + number): byte for number, byte in enumerate(byte for byte in range(256) if byte not in PLAIN)
}
"""The letters that byte-level vocabularies write bytes with."""
LETTERS = string.ascii_letters + string.digits


class Choice(Protocol):
    """One answer that is being made."""

    def head(self) -> list[Entry]:
        """What is sent before the first piece."""

    def feed(self, piece: Piece) -> list[Entry]:
        """Some more of the answer; what of it can be sent."""

    def whole(self) -> Entry:
        """All of it, after its last piece."""


class Calls(NamedTuple):
    """How calls of tools are read in an answer."""

    parser: Parser
    id_length: int
    several: bool = True
    """Whether more than the first is told."""


class TokenTexts:
    """Tokens as the text that log probabilities are told with."""

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        self._backend = backend
        self.of: Callable[[int], str] = functools.lru_cache(maxsize=4096)(
            lambda token: backend.decode([token], skip_special_tokens=False)
        )

    def bytes_of(self, token: int) -> list[int]:
        """What a token is in UTF-8: a part of a character, too, where the vocabulary is of bytes."""
        text = self.of(token)
        if "\N{REPLACEMENT CHARACTER}" not in text:
            return list(text.encode())
        written = self._backend.id_to_token(token) or ""
        if re.fullmatch("<0x[0-9A-F]{2}>", written):
            return [int(written[3:5], 16)]
        return [BYTES[letter] for letter in written] if all(letter in BYTES for letter in written) else []

    def told(self, token: int, value: float) -> Entry:
        """A token and its log probability."""
        return {"token": self.of(token), "logprob": _finite(value), "bytes": self.bytes_of(token)}


class ChatChoice:
    """A `Choice` of a chat completion; an answer's first characters are no white space (SentencePiece's)."""

    def __init__(self, index: int, texts: TokenTexts | None, calls: Calls | None) -> None:
        self._index = index
        self._texts = texts
        self._calls = calls
        self._said: list[str] = []
        self._made: list[Entry] = []
        self._logprobs: list[Entry] = []
        self._finish: str | None = None

    def head(self) -> list[Entry]:
        """See `Choice.head`."""
        return [{"index": self._index, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]

    def feed(self, piece: Piece) -> list[Entry]:
        """See `Choice.feed`."""
        deltas = [delta for told in self._read(piece) if (delta := self._delta(told))]
        logprobs = self._likely(piece)
        if piece.finish:
            self._finish = "tool_calls" if self._made and piece.finish == "stop" else piece.finish
        if not deltas and (piece.finish or logprobs):
            deltas = [{}]
        entries = [self._entry(delta) for delta in deltas]
        if entries:
            entries[0]["logprobs"] = {"content": logprobs} if logprobs else None
            entries[-1]["finish_reason"] = self._finish
        return entries

    def _entry(self, delta: Entry) -> Entry:
        return {"index": self._index, "delta": delta, "logprobs": None, "finish_reason": None}

    def whole(self) -> Entry:
        """See `Choice.whole`."""
        content = "".join(self._said)
        message: Entry = {"role": "assistant", "content": content if content or not self._made else None}
        if self._made:
            message["tool_calls"] = [{name: call[name] for name in ("id", "type", "function")} for call in self._made]
        logprobs = {"content": self._logprobs} if self._texts else None
        return {"index": self._index, "message": message, "logprobs": logprobs, "finish_reason": self._finish}

    def _read(self, piece: Piece) -> list[str | Call]:
        if self._calls is None:
            return [piece.text]
        told = self._calls.parser.push(piece.text)
        return told + self._calls.parser.end() if piece.finish else told

    def _delta(self, told: str | Call) -> Entry:
        if isinstance(told, Call):
            return self._call(told)
        text = told if self._said else told.lstrip()
        if text:
            self._said.append(text)
        return {"content": text} if text else {}

    def _call(self, call: Call) -> Entry:
        assert self._calls is not None
        if self._made and not self._calls.several:
            return {}
        name = "".join(secrets.choice(LETTERS) for _ in range(self._calls.id_length))
        made = {
            "index": len(self._made),
            "id": name if self._calls.id_length < 16 else f"call_{name}",
            "type": "function",
            "function": call._asdict(),
        }
        self._made.append(made)
        return {"tool_calls": [made]}

    def _likely(self, piece: Piece) -> list[Entry]:
        if self._texts is None:
            return []
        found = []
        for token, logprob in zip(piece.tokens, piece.logprobs, strict=False):  # a stop token has none
            top = [self._texts.told(*each) for each in logprob.top]
            found.append(self._texts.told(token, logprob.chosen) | {"top_logprobs": top})
        self._logprobs += found
        return found


class TextChoice:
    """A `Choice` of a completion; `echo` stands before the answer's own text."""

    def __init__(self, index: int, texts: TokenTexts | None, echo: str) -> None:
        self._index = index
        self._texts = texts
        self._echo = echo
        self._said: list[str] = []
        self._offset = 0
        self._finish: str | None = None
        self._logprobs: dict[str, list[Any]] = {
            "tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": [],
        }  # fmt: skip

    def head(self) -> list[Entry]:
        """See `Choice.head`."""
        return []

    def feed(self, piece: Piece) -> list[Entry]:
        """See `Choice.feed`."""
        text = piece.text if self._said else self._echo + piece.text
        logprobs = self._likely(piece)
        self._finish = piece.finish
        if not text and not logprobs and not piece.finish:
            return []
        self._said.append(text)
        return [{"index": self._index, "text": text, "logprobs": logprobs, "finish_reason": piece.finish}]

    def whole(self) -> Entry:
        """See `Choice.whole`."""
        logprobs = self._logprobs if self._texts else None
        text = "".join(self._said)
        return {"index": self._index, "text": text, "logprobs": logprobs, "finish_reason": self._finish}

    def _likely(self, piece: Piece) -> dict[str, list[Any]] | None:
        if self._texts is None or not piece.logprobs:
            return None
        found: dict[str, list[Any]] = {name: [] for name in self._logprobs}
        for token, logprob in zip(piece.tokens, piece.logprobs, strict=False):  # a stop token has none
            text = self._texts.of(token)
            found["tokens"].append(text)
            found["token_logprobs"].append(_finite(logprob.chosen))
            found["top_logprobs"].append({self._texts.of(token): _finite(value) for token, value in logprob.top})
            found["text_offset"].append(self._offset)
            self._offset += len(text)
        for name, values in found.items():
            self._logprobs[name] += values
        return found


def _finite(value: float) -> float:
    """JSON has no infinity; OpenAI writes this for what cannot be."""
    return max(value, -9999.0)
