"""How the tokens of one request are chosen: transformers' generation config, read once."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from serving.engine import generation
from serving.engine.protocol import Request, RequestRefused, Sampling

UNKNOWN_HERE = {
    "guidance_scale": 1,
    "sequence_bias": None,
    "bad_words_ids": None,
    "forced_bos_token_id": None,
    "forced_eos_token_id": None,
    "encoder_repetition_penalty": 1.0,
    "encoder_no_repeat_ngram_size": 0,
    "remove_invalid_values": False,
    "exponential_decay_length_penalty": None,
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
    "top_h": None,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
    "penalty_alpha": None,
    "dola_layers": None,
    "watermarking_config": None,
    "renormalize_logits": False,
}
"""Fields of a model's own generation config that only `generate` obeys, and values under which they change nothing."""
MOST_LOGPROBS = 100
MOST_TOGETHER = 256
RANGES: tuple[tuple[str, Callable[[float], bool], str], ...] = (
    ("temperature", lambda value: 0 < value < math.inf, "above 0"),
    ("top_k", lambda value: value >= 0, "0 or more"),
    ("top_p", lambda value: 0 <= value <= 1, "0 to 1"),
    ("min_p", lambda value: 0 <= value <= 1, "0 to 1"),
    ("typical_p", lambda value: 0 < value <= 1, "above 0, and at most 1"),
    ("repetition_penalty", lambda value: 0 < value < math.inf, "above 0"),
    ("no_repeat_ngram_size", lambda value: value >= 0, "0 or more"),
)
"""What `generate` takes only once it runs."""


@dataclass(frozen=True)
class Settings:
    """The wishes of a request with the model's and transformers' defaults below them."""

    sample: bool
    temperature: float
    top_k: int
    """0: off."""
    top_p: float
    min_p: float
    typical_p: float
    repetition_penalty: float
    no_repeat_ngram_size: int
    stop_ids: frozenset[int]
    alters: bool
    """Whether scores are changed before anything is chosen."""

    @property
    def few(self) -> bool:
        """Whether the choice is by chance, among so few that many rows are better done at once."""
        return self.sample and 0 < self.top_k <= MOST_TOGETHER and self.typical_p == 1


class Reader:
    """Reads the settings of requests for one model."""

    def __init__(self, own: Any, vocabulary: int) -> None:
        self._own = own
        self._vocabulary = vocabulary
        self._read = functools.lru_cache(256)(self._settings)

    def unknown(self) -> str:
        """A field of the model's own generation config that only `generate` obeys, or an empty string."""
        found = (name for name, idle in UNKNOWN_HERE.items() if getattr(self._own, name, None) not in (None, idle))
        return next(found, "")

    def settings(self, request: Request) -> Settings:
        """Raises RequestRefused for what `generate` would refuse."""
        sampling, bias = request.sampling, request.sampling.logit_bias
        if wrong := [token for token in bias if not 0 <= token < self._vocabulary]:
            raise RequestRefused(f"logit_bias names token {wrong[0]}; the vocabulary has {self._vocabulary}")
        if request.logprobs is not None and not 0 <= request.logprobs <= MOST_LOGPROBS:
            raise RequestRefused(f"logprobs is {request.logprobs}; it must be 0 to {MOST_LOGPROBS}")
        plain = replace(sampling, logit_bias=(), seed=None)  # type: ignore[arg-type]  # only to be hashed
        read = self._read(plain, request.stop_ids)
        wishes = (bias, sampling.presence_penalty, sampling.frequency_penalty, request.grammar, request.min_new_tokens)
        return replace(read, alters=True) if any(wishes) else read

    def _settings(self, sampling: Sampling, stop_ids: frozenset[int] | None) -> Settings:
        config = generation.configure(self._own, Request((0,), 1, sampling=sampling, stop_ids=stop_ids))
        for name, fine, wanted in RANGES:
            if (value := getattr(config, name)) is not None and not fine(value):
                raise RequestRefused(f"{name} is {value}; it must be {wanted}")
        penalty = config.repetition_penalty or 1.0
        ngrams = config.no_repeat_ngram_size or 0
        return Settings(
            sample=bool(config.do_sample),
            temperature=1.0 if config.temperature is None else config.temperature,
            top_k=min(50 if config.top_k is None else config.top_k, self._vocabulary),
            top_p=1.0 if config.top_p is None else config.top_p,
            min_p=config.min_p or 0.0,
            typical_p=1.0 if config.typical_p is None else config.typical_p,
            repetition_penalty=penalty,
            no_repeat_ngram_size=ngrams,
            stop_ids=frozenset(config.eos_token_id or ()),
            alters=penalty != 1.0 or ngrams > 0,
        )
