"""Between our requests and transformers' `generate`: its config, its streamer, its way to be cancelled.

Knows transformers and one sequence; nothing of queues or threads.
"""

import copy
import threading
from collections.abc import Callable
from typing import Any

import torch
import transformers
from transformers.generation.streamers import BaseStreamer

from serving.engine.protocol import Delta, ModelInfo, Request, RequestRefused, Sampling

DEFAULT_CONTEXT = 2048
"""For the few configs that name no longest position."""

FEATURES = frozenset(
    {
        "typical_p",
        "min_p",
        "repetition_penalty",
        "no_repeat_ngram_size",
        "num_beams",
        "early_stopping",
        "length_penalty",
    }
)
SAMPLING_ONLY = ("temperature", "top_k", "top_p", "min_p", "typical_p")
BEAMS_ONLY = ("early_stopping", "length_penalty")
COLDEST = 1e-5
"""Sampling below this temperature is greedy: far below, scores overflow, and a GPU that chooses among NaN is lost."""


def describe(model: Any, *, kind: str, concurrency: int) -> ModelInfo:
    """What this model is, for the HTTP side."""
    text = model.config.get_text_config()
    own = model.generation_config
    defaults: dict[str, Any] = {
        name: getattr(own, name, None) for name in (*SAMPLING_ONLY, "do_sample", "repetition_penalty")
    }
    return ModelInfo(
        kind=kind,
        concurrency=concurrency,
        context=getattr(text, "max_position_embeddings", None) or DEFAULT_CONTEXT,
        vocabulary=text.vocab_size,
        stop_ids=frozenset(_ids(own.eos_token_id)),
        defaults=Sampling(**defaults),
        features=FEATURES,
        dtype=str(model.dtype).removeprefix("torch."),
        device=str(model.device),
    )


def beyond(request: Request) -> dict[str, object]:
    """What a request can wish and `generate` does not do as we promise it; what is None or 0 is no wish."""
    wishes: dict[str, object] = {
        name: getattr(request.sampling, name) for name in ("presence_penalty", "frequency_penalty", "logit_bias")
    }
    return wishes | {"logprobs": request.logprobs is not None, "grammar": request.grammar is not None}


def configure(own: Any, request: Request) -> Any:
    """The model's generation config with the request's wishes on top."""
    merged = copy.deepcopy(own)
    sampling = request.sampling
    for name in ("do_sample", "repetition_penalty", "no_repeat_ngram_size", *SAMPLING_ONLY):
        if getattr(sampling, name) is not None:
            setattr(merged, name, getattr(sampling, name))
    if 0 < (merged.temperature or 0) < COLDEST:
        merged.do_sample = False
    if not merged.do_sample:
        for name in SAMPLING_ONLY:
            setattr(merged, name, None)
    merged.num_beams = sampling.num_beams
    for name in BEAMS_ONLY:
        setattr(merged, name, getattr(sampling, name) or None if sampling.num_beams > 1 else None)
    stop_ids = sorted(_ids(own.eos_token_id) if request.stop_ids is None else request.stop_ids)
    merged.eos_token_id = stop_ids or None
    merged.pad_token_id = stop_ids[0] if stop_ids else 0
    merged.max_length, merged.max_new_tokens = None, request.max_new_tokens
    merged.min_length, merged.min_new_tokens = None, request.min_new_tokens or None
    merged.disable_compile = True
    try:
        merged.validate()
    except ValueError as error:
        raise RequestRefused(str(error)) from error
    return merged


def _ids(value: int | list[int] | None) -> list[int]:
    if value is None:
        return []
    return [value] if isinstance(value, int) else list(value)


class Streamer(BaseStreamer):  # type: ignore[misc]  # transformers is untyped here
    """Hands on each token as it is chosen."""

    def __init__(self, tell: Callable[[Delta], None], stop_ids: frozenset[int]) -> None:
        self.tell = tell
        self.stop_ids = stop_ids
        self.stopped = False
        self._prompt_seen = False

    def put(self, value: torch.Tensor) -> None:
        """Called with the prompt first, then with each new token."""
        if not self._prompt_seen:
            self._prompt_seen = True
            return
        token = int(value.item())
        self.stopped = token in self.stop_ids
        self.tell(Delta((token,), "stop" if self.stopped else None))

    def end(self) -> None:
        """Called after the last token."""


class Cancelled(transformers.StoppingCriteria):  # type: ignore[misc]
    """Ends a generation whose request is gone."""

    def __init__(self, event: threading.Event) -> None:
        self.event = event

    def __call__(self, input_ids: torch.Tensor, _scores: torch.Tensor, **_: Any) -> torch.Tensor:
        """Whether each sequence is done."""
        return torch.full((input_ids.shape[0],), self.event.is_set(), device=input_ids.device)


def whole(tokens: list[int], stop_ids: frozenset[int]) -> Delta:
    """A finished beam as one delta: what follows the first stop token is padding."""
    for position, token in enumerate(tokens):
        if token in stop_ids:
            return Delta(tuple(tokens[: position + 1]), "stop")
    return Delta(tuple(tokens), "length")
