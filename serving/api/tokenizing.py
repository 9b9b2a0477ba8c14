"""`/tokenize` and `/detokenize`, as vLLM has them: what a prompt is to the model, before it is sent."""

from typing import Any

import fastapi
import pydantic

from serving import errors
from serving.api import documented, guards, openai_tools, refusals
from serving.api import openai_fields as fields
from serving.api.clients import aside
from serving.api.openai_body import Token, Turns, check_turns
from serving.service import Service
from serving.text.chat import TextRefused


class TokenizeBody(pydantic.BaseModel):
    """`POST /tokenize`: a prompt, or messages as a chat completion takes them."""

    model_config = documented.like({"prompt": "Once upon a time"}, {"messages": documented.HELLO}) | {"extra": "allow"}

    model: str | None = None
    prompt: str | None = None
    messages: Turns | None = None
    tools: refusals.Many[openai_tools.Tool] | None = None
    return_token_strs: bool | None = None

    @pydantic.model_validator(mode="after")
    def _one_of_both(self) -> "TokenizeBody":
        neutral = {**fields.TOKENIZE_NEUTRAL, "add_special_tokens": (self.messages is None,)}
        fields.refuse_unheard(self, fields.INERT, neutral)
        if (self.prompt is None) == (self.messages is None):
            raise errors.BadRequest("prompt or messages is required, and only one of them", param="prompt")
        check_turns(self.messages or [])
        return self


class DetokenizeBody(pydantic.BaseModel):
    """`POST /detokenize`."""

    model_config = documented.like({"tokens": [1, 2, 3]})

    model: str | None = None
    tokens: refusals.Many[Token]


def router(service: Service) -> fastapi.APIRouter:
    """`/tokenize` and `/detokenize`."""
    routes = fastapi.APIRouter(responses=documented.OPENAI, dependencies=[guards.JSON])

    @routes.post("/tokenize")
    async def tokenize(body: TokenizeBody, http: fastapi.Request) -> dict[str, Any]:
        loaded = service.require()
        tokens = await _tokens(service, body, http)
        answer = {"count": len(tokens), "max_model_len": loaded.engine.info.context, "tokens": tokens}
        if body.return_token_strs:
            write = loaded.chat.tokenizer.backend.id_to_token
            answer["token_strs"] = await aside(http, lambda: [write(token) for token in tokens])
        return answer

    @routes.post("/detokenize")
    async def detokenize(body: DetokenizeBody, http: fastapi.Request) -> dict[str, str]:
        backend, vocabulary = service.require().chat.tokenizer.backend, service.require().engine.info.vocabulary
        service.mix(body.model)
        for at, token in enumerate(body.tokens):
            if token >= vocabulary:
                raise refusals.of_field(f"tokens[{at}]", token, f"a token of this model is 0 to {vocabulary - 1}")
        return {"prompt": await aside(http, lambda: backend.decode(body.tokens, skip_special_tokens=False))}

    return routes


async def _tokens(service: Service, body: TokenizeBody, http: fastapi.Request) -> list[int]:
    chat, template = service.require().chat, service.mix(body.model).template
    turns = [turn.message(at) for at, turn in enumerate(body.messages or [])]
    try:
        prompt, tools = body.prompt, openai_tools.offered(body.tools or [], None)
        if prompt is not None:
            return await aside(http, lambda: chat.raw(prompt))
        return await aside(http, lambda: chat.conversation(turns, template, tools))
    except TextRefused as error:
        raise refusals.of_text(error, turns) from error
