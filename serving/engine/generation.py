"""Between our requests and transformers' `generate`: its config, its streamer, its way to be cancelled.

Knows transformers and one sequence; nothing of queues or threads.
"""

import copy
import logging
from collections.abc import Callable
from typing import Any

import torch
import transformers
from transformers.generation.streamers import BaseStreamer

from serving.engine.protocol import (
    Delta,
    EngineDown,
    ModelInfo,
    Request,
    RequestFailed,
    RequestRefused,
    Sampling,
)

log = logging.getLogger("serving.engine")
SEQUENTIAL = "sequential"
"""The kind of the engine that runs one request at a time."""

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
    chosen, stop_ids = defaults(model.generation_config)
    return ModelInfo(
        kind=kind,
        concurrency=concurrency,
        context=getattr(text, "max_position_embeddings", None) or DEFAULT_CONTEXT,
        vocabulary=text.vocab_size,
        stop_ids=stop_ids,
        defaults=chosen,
        features=FEATURES,
        dtype=str(model.dtype).removeprefix("torch."),
        device=str(model.device),
    )


def defaults(own: Any) -> tuple[Sampling, frozenset[int]]:
    """What a model's own generation config sets, and the tokens that end its answers."""
    fields: dict[str, Any] = {
        name: getattr(own, name, None) for name in (*SAMPLING_ONLY, "do_sample", "repetition_penalty")
    }
    return Sampling(**fields), frozenset(_ids(own.eos_token_id))


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

    def __init__(self, cancelled: Callable[[], bool]) -> None:
        self.cancelled = cancelled

    def __call__(self, input_ids: torch.Tensor, _scores: torch.Tensor, **_: Any) -> torch.Tensor:
        """Whether each sequence is done."""
        return torch.full((input_ids.shape[0],), self.cancelled(), device=input_ids.device)


def alone(model: Any, request: Request, cancelled: Callable[[], bool], tell: Callable[[Delta], None]) -> None:
    """Run one request by transformers' `generate`, the selected adapters included; blocks until it is done."""
    config = configure(model.generation_config, request)
    stop_ids = frozenset(config.eos_token_id or ())
    tell(Delta(()))
    if request.sampling.seed is not None:
        torch.manual_seed(request.sampling.seed)
    else:
        torch.seed()
    streamer = None if request.sampling.num_beams > 1 else Streamer(tell, stop_ids)
    prompt = torch.tensor([request.prompt], device=model.device)
    output = model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        generation_config=config,
        streamer=streamer,
        stopping_criteria=transformers.StoppingCriteriaList([Cancelled(cancelled)]),
    )
    if streamer is None:
        tell(whole(output[0, len(request.prompt) :].tolist(), stop_ids))
    elif not streamer.stopped:
        tell(Delta((), "length"))


def refuse(request: Request, info: ModelInfo) -> None:
    """Raise RequestRefused for what would break the model itself."""
    if not request.prompt:
        raise RequestRefused("the prompt has no tokens")
    if not all(0 <= token < info.vocabulary for token in request.prompt):
        raise RequestRefused(f"a token of the prompt is outside the vocabulary of {info.vocabulary}")
    if info.kind == SEQUENTIAL or request.sampling.num_beams > 1:
        for name, value in beyond(request).items():
            if value:
                raise RequestRefused(f"{name} is not supported where requests run one at a time; leave it out")
    if request.max_new_tokens < 1:
        raise RequestRefused(f"max_new_tokens is {request.max_new_tokens}; it must be at least 1")
    if len(request.prompt) + request.max_new_tokens > info.context:
        raise RequestRefused(
            f"{len(request.prompt)} tokens of prompt and {request.max_new_tokens} new ones exceed the model's "
            f"context of {info.context}"
        )


def explained(error: Exception) -> Exception:
    """What a request is told of an error that it met in the model."""
    if isinstance(error, ValueError):  # ours, or what transformers says of a generation config
        return RequestRefused(str(error))
    if isinstance(error, torch.OutOfMemoryError):
        torch.cuda.empty_cache()
        return RequestFailed(f"not enough GPU memory for this request: {error}")
    if isinstance(error, torch.AcceleratorError):
        return EngineDown(f"the GPU failed: {error}")
    log.error("a request failed in the engine", exc_info=error)
    return RequestFailed(f"{type(error).__name__}: {error}")


def whole(tokens: list[int], stop_ids: frozenset[int]) -> Delta:
    """A finished beam as one delta: what follows the first stop token is padding."""
    for position, token in enumerate(tokens):
        if token in stop_ids:
            return Delta(tuple(tokens[: position + 1]), "stop")
    return Delta(tuple(tokens), "length")
