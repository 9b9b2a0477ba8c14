"""OpenAI's chat completions and completions, whole or as server-sent events. Models are in `serving.api.models`."""

import contextlib
import json
import time
import uuid
from collections.abc import AsyncGenerator, Callable
from typing import Any

import fastapi
from fastapi.responses import StreamingResponse

from serving import errors
from serving.api.chat import supported
from serving.api.clients import while_connected
from serving.api.openai_body import DEFAULT_CHAT_TOKENS, DEFAULT_COMPLETION_TOKENS, ChatBody, Common, CompletionBody
from serving.engine.protocol import Request
from serving.service import Piece, Service
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
            raise errors.BadRequest(str(error), param="messages") from error
        most = body.max_completion_tokens or body.max_tokens
        request = body.request(prompt, loaded.engine.info, most=most, default=DEFAULT_CHAT_TOKENS)
        shape = Shape("chat.completion", body.model or service.config.name, whole=_message, chunk=_message_chunk)
        return await respond(body, http, request, shape)

    @routes.post("/v1/completions")
    async def complete(body: CompletionBody, http: fastapi.Request) -> Any:
        loaded = service.require()
        try:
            text, prompt = _raw(body, loaded.chat.raw)
        except TextRefused as error:
            raise errors.BadRequest(str(error), param="prompt") from error
        most = body.max_tokens
        request = body.request(prompt, loaded.engine.info, most=most, default=DEFAULT_COMPLETION_TOKENS)
        shape = Shape("text_completion", body.model or service.config.name, whole=_text, chunk=_text)
        return await respond(body, http, request, shape, echo=text if body.echo else "")

    async def respond(body: Common, http: fastapi.Request, request: Request, shape: Shape, *, echo: str = "") -> Any:
        info = service.require().engine.info
        supported(request.sampling, info)
        stream = pieces(body, request, concurrency=info.concurrency, stripped=shape.chat)
        if not body.stream:
            async with contextlib.aclosing(stream):
                done = await while_connected(http, _collect(stream))
            text = echo + "".join(piece.text for piece in done)
            usage = _usage(len(request.prompt), done)
            return {"object": shape.kind, **shape.head, "choices": [shape.whole(text, done[-1].finish)], "usage": usage}
        first = await while_connected(http, anext(stream))  # what is wrong is said with a status
        usage_too = body.stream_options is not None and body.stream_options.include_usage
        events = _events(shape, first, stream, prompt_tokens=len(request.prompt), echo=echo, usage_too=usage_too)
        return StreamingResponse(events, media_type="text/event-stream", headers={"Cache-Control": "no-store"})

    async def pieces(
        body: Common, request: Request, *, concurrency: int, stripped: bool
    ) -> AsyncGenerator[Piece, None]:
        """The answer, from the door to its last piece; adapters are chosen as it enters.

        `stripped` takes the white space at its beginning away: SentencePiece models begin a turn with a space.
        """
        with service.admission.enter(concurrency):
            wanted = request.with_adapters(service.mix(body.model).strengths)
            async with contextlib.aclosing(service.stream(wanted, stops=body.stops())) as stream:
                async for piece in stream:
                    text = piece.text.lstrip() if stripped else piece.text
                    stripped = stripped and not text
                    yield piece._replace(text=text)

    return routes


async def _collect(stream: AsyncGenerator[Piece, None]) -> list[Piece]:
    return [piece async for piece in stream]


async def _events(
    shape: Shape,
    first: Piece,
    rest: AsyncGenerator[Piece, None],
    *,
    prompt_tokens: int,
    echo: str,
    usage_too: bool,
) -> AsyncGenerator[str, None]:
    """Server-sent events; an error after the beginning is an event of its own."""
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
    if usage_too:
        yield _event(head | {"choices": [], "usage": _usage(prompt_tokens, done)})
    yield "data: [DONE]\n\n"


async def _chained(first: Piece, rest: AsyncGenerator[Piece, None]) -> AsyncGenerator[Piece, None]:
    yield first
    async for piece in rest:
        yield piece


def _event(value: object) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"


def _raw(body: CompletionBody, encode: Callable[[str], list[int]]) -> tuple[str, list[int]]:
    """The prompt's text (empty for tokens) and its tokens."""
    if isinstance(body.prompt, str):
        return body.prompt, encode(body.prompt)
    if body.prompt and isinstance(body.prompt[0], int):
        if body.echo:
            raise errors.BadRequest("echo needs a prompt of text", param="echo")
        return "", [token for token in body.prompt if isinstance(token, int)]
    if len(body.prompt) == 1 and isinstance(body.prompt[0], str):
        return body.prompt[0], encode(body.prompt[0])
    raise errors.BadRequest(f"prompt lists {len(body.prompt)} texts; send one in each request", param="prompt")


def _message(text: str, finish: str | None) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    return {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}


def _message_chunk(text: str, finish: str | None) -> dict[str, Any]:
    return {"index": 0, "delta": {"content": text} if text else {}, "logprobs": None, "finish_reason": finish}


def _text(text: str, finish: str | None) -> dict[str, Any]:
    return {"index": 0, "text": text, "logprobs": None, "finish_reason": finish}


def _usage(prompt: int, pieces: list[Piece]) -> dict[str, int]:
    completion = sum(piece.tokens for piece in pieces)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def error_body(error: errors.RequestError) -> dict[str, Any]:
    """OpenAI's shape."""
    return {"error": {"message": str(error), "type": error.type, "param": error.param, "code": error.code}}
