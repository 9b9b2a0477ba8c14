"""OpenAI's chat completions and completions, whole or as server-sent events. Models are in `serving.api.models`."""

import contextlib
import dataclasses
import json
import time
import uuid
from collections.abc import AsyncGenerator, Callable
from typing import Any

import fastapi
from fastapi.responses import StreamingResponse

from serving import errors
from serving.api import refusals
from serving.api.clients import patience, while_connected
from serving.api.openai_body import DEFAULT_CHAT_TOKENS, DEFAULT_COMPLETION_TOKENS, ChatBody, Common, CompletionBody
from serving.engine.protocol import Request
from serving.sequences import Piece
from serving.service import Loaded, Service
from serving.text.chat import TextRefused

Choice = Callable[[str, str | None], dict[str, Any]]
"""Text and finish reason to one entry of `choices`."""


class Shape:
    """How one answer is written: its ids and the form of its choices."""

    def __init__(self, kind: str, model: str, *, whole: Choice, chunk: Choice) -> None:
        self.chat = kind == "chat.completion"
        self.kind = kind
        self.chunk_kind = "chat.completion.chunk" if self.chat else kind
        self.head = {
            "id": f"{'chatcmpl' if self.chat else 'cmpl'}-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": model,
        }
        self.whole = whole
        self.chunk = chunk


def router(service: Service) -> fastapi.APIRouter:
    """`/v1/chat/completions` and `/v1/completions`."""
    routes = fastapi.APIRouter()

    @routes.post("/v1/chat/completions")
    async def chat(body: ChatBody, http: fastapi.Request) -> Any:
        loaded, mix = service.require(), service.mix(body.model)
        try:
            turns = [{"role": turn.role, "content": turn.text()} for turn in body.messages]
            prompt = loaded.chat.conversation(turns, mix.template)
        except TextRefused as error:
            raise refusals.of_text(error, turns) from error
        request = body.request(prompt, loaded.engine.info, default=DEFAULT_CHAT_TOKENS)
        shape = Shape("chat.completion", body.model or service.config.name, whole=_message, chunk=_message_chunk)
        return await Answer(service, body, request, shape, patience(http)).respond(http)

    @routes.post("/v1/completions")
    async def complete(body: CompletionBody, http: fastapi.Request) -> Any:
        loaded = service.require()
        try:
            text, prompt = _raw(body, loaded)
        except TextRefused as error:
            raise errors.BadRequest(str(error), param="prompt") from error
        request = body.request(prompt, loaded.engine.info, default=DEFAULT_COMPLETION_TOKENS)
        shape = Shape("text_completion", body.model or service.config.name, whole=_text, chunk=_text)
        return await Answer(service, body, request, shape, patience(http), echo=text if body.echo else "").respond(http)

    return routes


@dataclasses.dataclass(frozen=True)
class Answer:
    """What one request is answered, whole or piece by piece."""

    service: Service
    body: Common
    request: Request
    shape: Shape
    seconds: float | None
    """How long the client wants to wait."""
    echo: str = ""
    """What stands before the answer's own text."""

    async def respond(self, http: fastapi.Request) -> Any:
        """The answer as an object, or as a stream whose beginning is known to be right."""
        refusals.check_sampling(self.request.sampling, self.service.require().engine.info)
        stream = self._pieces()
        if self.body.stream:
            first = await while_connected(http, anext(stream))  # what is wrong is said with a status
            events = self._events(first, stream)
            return StreamingResponse(events, media_type="text/event-stream", headers={"Cache-Control": "no-store"})
        async with contextlib.aclosing(stream):
            done = await while_connected(http, _collect(stream))
        text = self.echo + "".join(piece.text for piece in done)
        choices = [self.shape.whole(text, done[-1].finish)]
        return {"object": self.shape.kind, **self.shape.head, "choices": choices, "usage": self._usage(done)}

    async def _pieces(self) -> AsyncGenerator[Piece, None]:
        """The answer, from the door to its last piece; adapters are chosen as it enters.

        White space at a chat answer's beginning is taken away: SentencePiece models begin a turn with a space.
        """
        service, stripped = self.service, self.shape.chat
        mix = service.mix(self.body.model)
        with service.enter([self.request], mix, seconds=self.seconds) as [place]:
            wanted = self.request.with_adapters(mix.strengths)
            async with contextlib.aclosing(service.stream(wanted, place, stops=self.body.stops())) as stream:
                async for piece in stream:
                    text = piece.text.lstrip() if stripped else piece.text
                    stripped = stripped and not text
                    yield piece._replace(text=text)

    async def _events(self, first: Piece, rest: AsyncGenerator[Piece, None]) -> AsyncGenerator[str, None]:
        """Server-sent events; an error after the beginning is an event of its own."""
        shape, echo, options = self.shape, self.echo, self.body.stream_options
        done: list[Piece] = []
        head = {"object": shape.chunk_kind, **shape.head}
        async with contextlib.aclosing(rest):
            try:
                if shape.chat:
                    role = {"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}
                    yield _event(head | {"choices": [role]})
                async for piece in _chained(first, rest):
                    done.append(piece)
                    text, echo = echo + piece.text, ""
                    if text or piece.finish:
                        yield _event(head | {"choices": [shape.chunk(text, piece.finish)]})
            except errors.RequestError as error:
                yield _event(error_body(error))
                return
        if options is not None and options.include_usage:
            yield _event(head | {"choices": [], "usage": self._usage(done)})
        yield "data: [DONE]\n\n"

    def _usage(self, done: list[Piece]) -> dict[str, int]:
        prompt, completion = len(self.request.prompt), sum(len(piece.tokens) for piece in done)
        return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


async def _collect(stream: AsyncGenerator[Piece, None]) -> list[Piece]:
    return [piece async for piece in stream]


async def _chained(first: Piece, rest: AsyncGenerator[Piece, None]) -> AsyncGenerator[Piece, None]:
    yield first
    async for piece in rest:
        yield piece


def _event(value: object) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"


def _raw(body: CompletionBody, loaded: Loaded) -> tuple[str, list[int]]:
    """The prompt's text (empty for tokens) and its tokens."""
    if isinstance(body.prompt, str):
        return body.prompt, loaded.chat.raw(body.prompt)
    if body.echo:
        raise refusals.of_field("echo", body.echo, "it needs a prompt of text")
    vocabulary = loaded.engine.info.vocabulary
    for at, token in enumerate(body.prompt):
        if not 0 <= token < vocabulary:
            raise refusals.of_field(f"prompt[{at}]", token, f"a token of this model is 0 to {vocabulary - 1}")
    return "", body.prompt


def _message(text: str, finish: str | None) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    return {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}


def _message_chunk(text: str, finish: str | None) -> dict[str, Any]:
    return {"index": 0, "delta": {"content": text} if text else {}, "logprobs": None, "finish_reason": finish}


def _text(text: str, finish: str | None) -> dict[str, Any]:
    return {"index": 0, "text": text, "logprobs": None, "finish_reason": finish}


def error_body(error: errors.RequestError) -> dict[str, Any]:
    """OpenAI's shape."""
    return {"error": {"message": str(error), "type": error.type, "param": error.param, "code": error.code}}
