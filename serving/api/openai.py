"""OpenAI's chat completions and completions, whole or as server-sent events. Models are in `serving.api.models`."""

import asyncio
import contextlib
import dataclasses
import time
import uuid
from collections.abc import AsyncGenerator, Iterator
from typing import Any

import fastapi
from fastapi.responses import StreamingResponse

from serving import errors
from serving.api import documented, guards, openai_forms, openai_tools, refusals, streams
from serving.api.clients import aside, patience, while_connected
from serving.api.openai_body import DEFAULT_CHAT_TOKENS, DEFAULT_COMPLETION_TOKENS, ChatBody, Common, CompletionBody
from serving.api.openai_choices import Calls, ChatChoice, Choice, TextChoice, TokenTexts
from serving.engine.protocol import Request
from serving.sequences import Piece, numbered
from serving.service import Grammar, Loaded, Service
from serving.text import tools
from serving.text.chat import TextRefused, Tools

CHAT, TEXT = "chat.completion", "text_completion"


def router(service: Service) -> fastapi.APIRouter:
    """`/v1/chat/completions` and `/v1/completions`."""
    routes = fastapi.APIRouter(responses=documented.OPENAI, dependencies=[guards.JSON])

    @routes.post("/v1/chat/completions", responses=documented.STREAMED)
    async def chat(body: ChatBody, http: fastapi.Request) -> Any:
        return await (await _chat(service, body, http)).respond(http)

    @routes.post("/v1/completions", responses=documented.STREAMED)
    async def complete(body: CompletionBody, http: fastapi.Request) -> Any:
        return await (await _complete(service, body, http)).respond(http)

    return routes


@dataclasses.dataclass(frozen=True)
class Answer:
    """What one request is answered, whole or piece by piece."""

    service: Service
    body: Common
    kind: str
    requests: list[Request]
    choices: list[Choice]
    """One for each request."""
    seconds: float | None
    """How long the client wants to wait."""
    special: bool = False
    """Whether control tokens are text: calls of tools may be marked with them."""

    async def respond(self, http: fastapi.Request) -> Any:
        """The answer as an object, or as a stream whose beginning is known to be right if it comes soon."""
        if not self.body.stream:
            usage = await while_connected(http, self._whole())
            choices = [choice.whole() for choice in self.choices]
            return {"object": self.kind, **self._head(), "choices": choices, "usage": usage}
        lines = self._lines()
        first = asyncio.ensure_future(anext(lines))
        seconds = self.service.limits.keep_alive_seconds
        try:
            await while_connected(http, _ready(first, seconds))
        except BaseException:
            first.cancel()
            raise
        return StreamingResponse(
            self._sent(first, lines), media_type="text/event-stream", headers={"Cache-Control": "no-store"}
        )

    async def _whole(self) -> dict[str, int]:
        """Make the answers; what they took."""
        taken = 0
        async with contextlib.aclosing(self._pieces()) as pieces:
            async for number, piece in pieces:
                self.choices[number].feed(piece)
                taken += len(piece.tokens)
        return self._usage(taken)

    async def _pieces(self) -> AsyncGenerator[tuple[int, Piece], None]:
        """The answers, from the door to their last piece; adapters are chosen as they enter."""
        service, body = self.service, self.body
        mix = service.mix(body.model, body.adapter_strength)
        with service.enter(self.requests, mix, seconds=self.seconds) as places:
            answers = [
                service.stream(
                    request.with_adapters(mix.strengths),
                    place,
                    stops=body.stops(),
                    special=self.special,
                    at_once=not body.stream,
                )
                for request, place in zip(self.requests, places, strict=True)
            ]
            async with contextlib.aclosing(streams.merged(answers)) as pieces:
                async for each in pieces:
                    yield each

    async def _lines(self) -> AsyncGenerator[str, None]:
        """The events; an error is raised."""
        head = {"object": f"{CHAT}.chunk" if self.kind == CHAT else self.kind, **self._head()}
        taken, begun = 0, False
        async with contextlib.aclosing(self._pieces()) as pieces:
            async for number, piece in pieces:
                entries = self.choices[number].feed(piece)
                if not begun:
                    entries = [entry for choice in self.choices for entry in choice.head()] + entries
                begun, taken = True, taken + len(piece.tokens)
                if entries:
                    yield "".join(streams.event(head | {"choices": [entry]}) for entry in entries)
        if self.body.stream_options is not None and self.body.stream_options.include_usage:
            yield streams.event(head | {"choices": [], "usage": self._usage(taken)})
        yield streams.DONE

    async def _sent(self, first: "asyncio.Future[str]", lines: AsyncGenerator[str, None]) -> AsyncGenerator[str, None]:
        """An error after the beginning is an event of its own, and the last."""
        events = streams.kept_alive(first, lines, self.service.limits.keep_alive_seconds)
        try:
            async with contextlib.aclosing(events):
                async for each in events:
                    yield each
        except Exception as error:  # noqa: BLE001 (told, and in the log)
            told = errors.told(error)
            self.service.metrics.refused(told.status)
            yield streams.event(error_body(told))

    def _head(self) -> dict[str, Any]:
        name = f"{'chatcmpl' if self.kind == CHAT else 'cmpl'}-{uuid.uuid4().hex}"
        return {"id": name, "created": int(time.time()), "model": self.body.model or self.service.config.name}

    def _usage(self, completion: int) -> dict[str, int]:
        """Each prompt counts once, however many answers it gets."""
        prompt = sum(len(request.prompt) for request in self.requests[:: self.body.n or 1])
        return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


async def _chat(service: Service, body: ChatBody, http: fastapi.Request) -> Answer:
    loaded, count, seconds = service.door(), _count(service, body), patience(http)
    offered = openai_tools.offered(body.tools or [], body.tool_choice)
    several = body.parallel_tool_calls is not False
    forced = openai_tools.forced_schema(offered, body.tool_choice, several=several)
    form = openai_forms.of_schema("tools", forced) if forced else body.form()
    grammar = await _grammar(service, form)
    template = service.mix(body.model, body.adapter_strength).template
    kind = _kind(offered, template, service.config.tool_call_parser)
    turns = [turn.message(at) for at, turn in enumerate(body.messages)]
    try:
        prompt = await aside(http, lambda: loaded.chat.conversation(turns, template, offered))
    except TextRefused as error:
        raise refusals.of_text(error, turns) from error
    request = body.request(prompt, loaded, default=DEFAULT_CHAT_TOKENS)
    texts = TokenTexts(loaded.chat.tokenizer.backend) if body.logprobs else None

    def calls() -> Calls | None:
        if kind is None:
            return None
        names = [tool["function"]["name"] for tool in offered]
        return Calls(tools.forced() if forced else kind.parser(names), kind.id_length, several)

    choices: list[Choice] = [ChatChoice(index, texts, calls()) for index in range(count)]
    requests = list(_each(request, count, grammar))
    return Answer(service, body, CHAT, requests, choices, seconds, special=bool(offered))


async def _complete(service: Service, body: CompletionBody, http: fastapi.Request) -> Answer:
    loaded, count, seconds = service.door(), _count(service, body), patience(http)
    grammar = await _grammar(service, body.form())
    texts = TokenTexts(loaded.chat.tokenizer.backend) if body.logprobs is not None else None
    requests, choices = list[Request](), list[Choice]()
    for prompt in body.prompts():
        text, ids = await _raw(body, prompt, loaded, http)
        request = body.request(ids, loaded, default=DEFAULT_COMPLETION_TOKENS)
        for each in _each(request, count, grammar):
            choices.append(TextChoice(len(choices), texts, text if body.echo else ""))
            requests.append(each)
    return Answer(service, body, TEXT, requests, choices, seconds)


def _count(service: Service, body: Common) -> int:
    """How many answers a prompt gets."""
    count, most = body.n or 1, service.limits.choices
    if count > most:
        raise refusals.of_field("n", count, f"at most {most} answers are made of one prompt")
    return count


async def _grammar(service: Service, form: openai_forms.Form | None) -> Grammar | None:
    if form is None:
        return None
    refusals.check_feature("grammar", form, service.require().engine.info, path=form.path)
    return await asyncio.to_thread(lambda: openai_forms.compiled(form, service.grammars()))


def _each(request: Request, count: int, grammar: Grammar | None) -> Iterator[Request]:
    """The same request for each of its answers, with a grammar of its own."""
    for number in range(count):
        forked = grammar.fork() if grammar else None
        yield dataclasses.replace(numbered(request, number), grammar=forked)


def _kind(offered: Tools, template: str | None, named: str | None) -> tools.Kind | None:
    """How this template's models write calls, if that is not `named`; refused where nobody knows."""
    if not offered:
        return None
    kind = tools.of_template(template or "", named)
    if kind is None:
        known = ", ".join(each.name for each in tools.KINDS)
        told = f"this model's chat template shows the model no tools, or in none of the ways known here ({known})"
        raise errors.BadRequest(f'tools: {told}; leave them out, or send tool_choice: "none"', param="tools")
    return kind


async def _raw(
    body: CompletionBody, prompt: str | list[int], loaded: Loaded, http: fastapi.Request
) -> tuple[str, list[int]]:
    """The prompt's text (empty for tokens) and its tokens."""
    if isinstance(prompt, str):
        try:
            return prompt, await aside(http, lambda: loaded.chat.raw(prompt))
        except TextRefused as error:
            raise errors.BadRequest(str(error), param="prompt") from error
    if body.echo:
        raise refusals.of_field("echo", body.echo, "it needs a prompt of text")
    vocabulary = loaded.engine.info.vocabulary
    for at, token in enumerate(prompt):
        if token >= vocabulary:
            raise refusals.of_field(f"prompt[{at}]", token, f"a token of this model is 0 to {vocabulary - 1}")
    return "", prompt


async def _ready(first: "asyncio.Future[str]", seconds: float) -> None:
    """Wait so long for the first event; its error is raised."""
    if (await asyncio.wait({first}, timeout=seconds))[0]:
        first.result()


def error_body(error: errors.RequestError) -> dict[str, Any]:
    """OpenAI's shape."""
    return {"error": {"message": str(error), "type": error.type, "param": error.param, "code": error.code}}
