"""Answers in a given form: which tokens may come next, asked of the llguidance library token by token.

Loaded with a model, since it imports torch; what is asked for comes from `serving.api.openai_forms`. Knows neither
engines nor HTTP: a form that cannot be had is a `TextRefused` with the reason.
"""

import functools
import json
from collections.abc import Collection, Sequence
from typing import Any

import llguidance
import tokenizers
import torch

from serving.engine.protocol import Form
from serving.text.chat import TextRefused

BLANKS = r"[ \n]{0,40}"
"""Between the parts of JSON. Without an end to it, a model that has nothing to say would fill its answer with it."""


class Grammars:
    """Makes grammars over one model's vocabulary; may be called from several threads."""

    def __init__(self, backend: tokenizers.Tokenizer, *, vocabulary: int, stop_ids: Collection[int]) -> None:
        self._backend = backend
        self._vocabulary = vocabulary
        self._stop_ids = sorted(stop_ids)

    def json(self, schema: Any) -> "Walk":
        """JSON that a schema describes."""
        try:
            text = json.dumps(schema)
            grammar = llguidance.LLMatcher.grammar_from_json_schema(
                text, overrides={"whitespace_pattern": BLANKS, "whitespace_flexible": True}
            )
        except (ValueError, RecursionError) as error:
            raise TextRefused(f"this JSON schema cannot be followed: {error}") from error
        return self._walk(grammar, Form("json", schema), "this JSON schema cannot be followed")

    def regex(self, pattern: str) -> "Walk":
        """Text that matches a regular expression as a whole."""
        grammar = llguidance.LLMatcher.grammar_from_regex(pattern)
        return self._walk(grammar, Form("regex", pattern), "this regular expression cannot be used")

    def choice(self, texts: Sequence[str]) -> "Walk":
        """One of these texts."""
        lark = "start: " + " | ".join(json.dumps(text) for text in texts)
        grammar = llguidance.LLMatcher.grammar_from_lark(lark)
        return self._walk(grammar, Form("choice", list(texts)), "these choices cannot be used")

    def _walk(self, grammar: str, form: Form, wrong: str) -> "Walk":
        matcher = llguidance.LLMatcher(self._tokenizer, grammar, log_level=0)
        if matcher.is_error():
            raise TextRefused(f"{wrong}: {matcher.get_error().strip().splitlines()[0]}")
        return Walk(matcher, form)

    @functools.cached_property
    def _tokenizer(self) -> llguidance.LLTokenizer:
        """Takes about a second for a large vocabulary, and only who asks for a form waits for it."""
        own = tokenizers.Tokenizer.from_str(self._backend.to_str())
        own.no_padding()
        own.no_truncation()
        return llguidance.LLTokenizer(own.to_str(), n_vocab=self._vocabulary, eos_token=self._stop_ids)


class Walk:
    """One answer's way through its grammar: a `serving.engine.protocol.Grammar`."""

    def __init__(self, matcher: llguidance.LLMatcher, form: Form) -> None:
        self.form = form
        self._matcher = matcher

    def allowed(self) -> torch.Tensor:
        """The tokens that may come next, of the vocabulary; where the form is complete, the stop tokens.

        Raises ValueError where llguidance gave up: it would allow an end then, whatever is missing.
        """
        allowed = self._matcher.compute_logit_bias()
        if self._matcher.is_error():
            raise ValueError(self._why())
        return torch.frombuffer(bytearray(allowed), dtype=torch.uint8).bool()

    def accept(self, token: int) -> None:
        """Go on over a token that was chosen; raises ValueError where llguidance gives up."""
        ended = self._matcher.is_stopped()
        if not self._matcher.consume_token(token) and not ended:
            raise ValueError(self._why())

    def _why(self) -> str:
        return self._matcher.get_error().strip().partition("\n")[0] or "llguidance gave up"

    def fork(self) -> "Walk":
        """The same for another answer to the same prompt."""
        return Walk(self._matcher.deep_copy(), self.form)
