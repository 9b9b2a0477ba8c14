"""KAITO's `/chat`, as its transformers runtime answers from v0.2 to v0.8, in both of its modes.

A `prompt` is text generation, `messages` are a conversation. Differences, all of them on purpose: a prompt without the
chat template's control tokens is rendered as one user turn; what made KAITO answer 500 is a 400 that names the field;
the conversation's answer is the assistant's text and not the print of a Python object.
"""

import contextlib
import dataclasses
from collections.abc import AsyncGenerator
from typing import Annotated

import fastapi
import pydantic

from serving import errors
from serving.api import documented, guards, refusals
from serving.api.clients import aside, patience, together, while_connected
from serving.engine.protocol import ModelInfo, Request, Sampling
from serving.sequences import Piece, numbered
from serving.service import Loaded, Mix, Service
from serving.text import tokens
from serving.text.chat import Message, TextRefused

ROLES = ("system", "user", "assistant", "tool")
MAX_BEAMS = 8
MAX_STOPS = 16
MANY = f"at most {MAX_STOPS} strings"
_PROMPT = 'send {"prompt": "..."}'
_MESSAGES = 'send {"messages": [{"role": "user", "content": "..."}]}'
IGNORED = frozenset({"pad_token_id", "use_cache", "return_dict_in_generate", "bos_token_id"})
"""Keywords of `generate` that change nothing in what /chat answers, as does null for any other."""


class Options(pydantic.BaseModel):
    """`generate_kwargs`: KAITO's defaults hold even over the model's own, then the further ones that are honoured."""

    model_config = pydantic.ConfigDict(extra="allow", allow_inf_nan=False)

    max_length: int = 200
    """Of prompt and answer together."""
    min_length: int = 0
    do_sample: bool = True
    early_stopping: bool = False
    num_beams: int = 1
    temperature: float = 1.0
    top_k: int = 10
    top_p: float = 1.0
    typical_p: float = 1.0
    repetition_penalty: float = 1.0
    eos_token_id: int | refusals.Many[int] | None = None

    max_new_tokens: int | None = None
    min_new_tokens: int = 0
    num_return_sequences: int = 1
    no_repeat_ngram_size: int | None = None
    min_p: float | None = None
    length_penalty: float | None = None
    seed: int | None = None
    stop_strings: str | refusals.Many[str] | None = None


class Turn(pydantic.BaseModel):
    """One of `messages`."""

    role: Annotated[str, pydantic.WithJsonSchema({"enum": [*ROLES]})]
    content: str


class Body(pydantic.BaseModel):
    """The body of a request; further keys are ignored."""

    model_config = documented.like({"prompt": "YOUR QUESTION HERE"}, {"messages": documented.HELLO})

    prompt: str | None = None
    return_full_text: bool | None = True
    clean_up_tokenization_spaces: bool | None = False
    prefix: str | None = None
    handle_long_generation: str | None = None
    messages: Annotated[refusals.Many[Turn], pydantic.Field(max_length=refusals.MAX_MESSAGES)] | None = None
    generate_kwargs: Options | None = None


def router(service: Service) -> fastapi.APIRouter:
    """`POST /chat`."""
    routes = fastapi.APIRouter(responses=documented.KAITO, dependencies=[guards.JSON])

    @routes.post("/chat")
    async def chat(body: Body, request: fastapi.Request) -> dict[str, str]:
        options = body.generate_kwargs or Options()
        _check(options, service.limits.choices)
        loaded = service.door()
        mix = service.mix(None)
        with service.adapters.lease(mix.strengths):
            prompt = await aside(request, lambda: _prompt(loaded, body, mix))
        wanted = _request(options, prompt, loaded.engine.info, whole=_keeps_whole(body))
        wanted = wanted.with_adapters(mix.strengths)
        stops = (options.stop_strings,) if isinstance(options.stop_strings, str) else tuple(options.stop_strings or ())
        requests = [numbered(wanted, number) for number in range(options.num_return_sequences)]
        with service.enter(requests, mix, seconds=patience(request)) as places:
            streams = [
                service.stream(each, place, stops=stops, at_once=True)
                for each, place in zip(requests, places, strict=True)
            ]
            answers = together([_text_of(stream) for stream in streams])
            texts = [_shown(body, text) for text in await while_connected(request, answers)]
        result = "".join(texts)
        return {"Result": result.lstrip() if _is_answer(loaded, body, mix) else result}

    return routes


def _check(options: Options, most_sequences: int) -> None:
    """Refuse keywords that are not honoured, and values without a meaning."""
    for key, value in (options.model_extra or {}).items():
        if value is not None and key not in IGNORED:
            raise _bad(key, value, f"it is not supported; there are {', '.join(sorted(Options.model_fields))}")
    least, most = refusals.PENALTY
    for field, fits, range_ in (
        ("temperature", options.temperature > 0 or not options.do_sample, "above 0; or set do_sample to false"),
        ("top_k", options.top_k >= 0, "0 (off) or above"),
        ("top_p", 0 < options.top_p <= 1, "above 0 and at most 1"),
        ("typical_p", 0 < options.typical_p <= 1, "above 0 and at most 1"),
        ("repetition_penalty", least <= options.repetition_penalty <= most, f"{least} to {most}"),
        ("num_beams", 1 <= options.num_beams <= MAX_BEAMS, f"1 to {MAX_BEAMS}"),
        ("num_return_sequences", 1 <= options.num_return_sequences <= most_sequences, f"1 to {most_sequences}"),
        ("stop_strings", isinstance(options.stop_strings, str | None) or len(options.stop_strings) <= MAX_STOPS, MANY),
        ("max_new_tokens", options.max_new_tokens is None or options.max_new_tokens >= 1, "at least 1"),
        ("min_p", options.min_p is None or 0 <= options.min_p <= 1, "0 to 1"),
        ("no_repeat_ngram_size", (options.no_repeat_ngram_size or 0) >= 0, "0 or above"),
        ("seed", options.seed is None or 0 <= options.seed < 1 << 63, "0 to 2^63 - 1"),
    ):
        if not fits:
            raise _bad(field, getattr(options, field), f"it must be {range_}")


def _prompt(loaded: Loaded, body: Body, mix: Mix) -> list[int]:
    """What the model is to continue."""
    turns: list[Message] = [{"role": turn.role, "content": turn.content} for turn in body.messages or ()]
    try:
        if body.prompt:
            return loaded.chat.prompt(_text(body), mix.template)
        if turns:
            refusals.check_roles([turn["role"] for turn in turns], ROLES)
            return loaded.chat.conversation(turns, mix.template)
    except TextRefused as error:
        raise refusals.of_text(error, turns) from error
    if body.messages is not None and body.prompt is None:
        raise errors.BadRequest(f"Conversational parameter messages required: {_MESSAGES}")
    raise errors.BadRequest(f"Text generation parameter prompt required: {_PROMPT}")


def _text(body: Body) -> str:
    return (body.prefix or "") + (body.prompt or "")


def _is_answer(loaded: Loaded, body: Body, mix: Mix) -> bool:
    """Whether the result is an assistant's turn alone: SentencePiece models begin it with a space that nobody wants."""
    if not body.prompt:
        return True
    return not body.return_full_text and not loaded.chat.is_raw(_text(body), mix.template)


def _keeps_whole(body: Body) -> bool:
    """Whether a prompt that is too long must be refused, and not cut from the left."""
    if body.handle_long_generation not in (None, "hole"):
        raise refusals.of_field("handle_long_generation", body.handle_long_generation, 'it must be null or "hole"')
    return body.handle_long_generation is None


def _request(options: Options, prompt: list[int], info: ModelInfo, *, whole: bool) -> Request:
    new = options.max_length - len(prompt) if options.max_new_tokens is None else options.max_new_tokens
    if new < 1:
        raise _bad(
            "max_length",
            options.max_length,
            f"it counts the prompt, which has {len(prompt)} tokens; raise it or set generate_kwargs.max_new_tokens",
        )
    if not whole and len(prompt) + new > info.context > new:
        prompt = prompt[new - info.context :]
    if len(prompt) >= info.context:
        remedy = 'set handle_long_generation to "hole"' if whole else f"ask for fewer than {info.context} new ones"
        room = f"the model takes {info.context} with its answer"
        raise errors.BadRequest(f"the prompt has {len(prompt)} tokens; {room}: shorten it, or {remedy}")
    new = min(new, info.context - len(prompt))
    least = max(0, options.min_new_tokens, options.min_length - len(prompt))
    stop = [options.eos_token_id] if isinstance(options.eos_token_id, int) else options.eos_token_id
    if not all(0 <= token < info.vocabulary for token in stop or ()):
        raise _bad("eos_token_id", options.eos_token_id, f"it must be a token of the vocabulary of {info.vocabulary}")
    wishes = {field.name for field in dataclasses.fields(Sampling)} & Options.model_fields.keys()
    sampling = Sampling(**{name: getattr(options, name) for name in wishes})
    return Request(
        prompt=tuple(prompt),
        max_new_tokens=new,
        min_new_tokens=min(least, new),
        sampling=refusals.check_sampling(sampling, info, within="generate_kwargs."),
        stop_ids=None if stop is None else frozenset(stop),
    )


async def _text_of(stream: AsyncGenerator[Piece, None]) -> str:
    async with contextlib.aclosing(stream):
        return "".join([piece.text async for piece in stream])


def _shown(body: Body, text: str) -> str:
    if body.clean_up_tokenization_spaces:
        text = tokens.tidy(text)
    return body.prompt + text if body.prompt and body.return_full_text else text


def _bad(field: str, value: object, remedy: str) -> errors.BadRequest:
    return refusals.of_field(f"generate_kwargs.{field}", value, remedy)
