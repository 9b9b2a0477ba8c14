"""OpenAI's request bodies: what is honoured, what is inert, and that everything else is refused with its name.

Ignoring a field that changes the meaning would be a wrong answer without an error. Knows no routes.
"""

from typing import Annotated, Any, Literal

import pydantic

from serving import errors
from serving.engine.protocol import ModelInfo, Request, Sampling

DEFAULT_CHAT_TOKENS = 1024
DEFAULT_COMPLETION_TOKENS = 16
MAX_STOPS = 4

INERT = frozenset(
    {
        "user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention",
        "verbosity",
    }
)  # fmt: skip
"""Fields that change nothing in the answer."""

NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "best_of": (1,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "suffix": ("",),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "skip_special_tokens": (True,),
}
"""Known fields that are not honoured yet, and the values (beside null) under which that changes nothing."""

Unit = Annotated[float, pydantic.Field(gt=0, le=1)]


class Part(pydantic.BaseModel):
    """A part of a message's content; only text can be read."""

    type: Literal["text"]
    text: str


class Turn(pydantic.BaseModel):
    """One message; further keys such as `name` are ignored."""

    role: str
    content: str | list[Part]

    def text(self) -> str:
        """The content as one text."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class StreamOptions(pydantic.BaseModel):
    """`stream_options`."""

    include_usage: bool = False


class Common(pydantic.BaseModel):
    """What both kinds of completion have."""

    model_config = pydantic.ConfigDict(extra="allow", allow_inf_nan=False)

    model: str | None = None
    temperature: Annotated[float, pydantic.Field(ge=0, le=2)] | None = None
    top_p: Unit | None = None
    top_k: Annotated[int, pydantic.Field(ge=-1)] | None = None
    min_p: Annotated[float, pydantic.Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, pydantic.Field(gt=0)] | None = None
    seed: Annotated[int, pydantic.Field(ge=0, lt=1 << 63)] | None = None
    max_tokens: Annotated[int, pydantic.Field(ge=1)] | None = None
    stop: str | list[str] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    @pydantic.model_validator(mode="after")
    def _nothing_unheard(self) -> "Common":
        for field, value in (self.model_extra or {}).items():
            if value is None or field in INERT or value in NEUTRAL.get(field, ()):
                continue
            known = "is not supported yet" if field in NEUTRAL else "is not a field of this API"
            raise ValueError(f"{field} {value!r} {known}; leave it out")
        if len(self.stops()) > MAX_STOPS:
            raise ValueError(f"stop has {len(self.stops())} strings; at most {MAX_STOPS} are taken")
        return self

    def stops(self) -> tuple[str, ...]:
        """The stop strings."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    def sampling(self, defaults: Sampling) -> Sampling:
        """The model's own settings under the request's; sampling unless the temperature is 0, as OpenAI does it."""
        temperature = self.temperature if self.temperature is not None else defaults.temperature
        top_k = self.top_k if self.top_k is not None else defaults.top_k
        return Sampling(
            do_sample=temperature != 0,
            temperature=temperature if temperature is not None else 1.0,
            top_k=max(0, top_k or 0),
            top_p=self.top_p if self.top_p is not None else defaults.top_p,
            min_p=self.min_p,
            repetition_penalty=self.repetition_penalty,
            seed=self.seed,
        )

    def request(self, prompt: list[int], info: ModelInfo, *, most: int | None, default: int) -> Request:
        """The engine's request; an explicit `most` that does not fit is refused, the default is cut."""
        room = info.context - len(prompt)
        if not prompt or room < 1 or (most or 0) > room:
            asked = f" and {most} new ones are asked for" if most else ""
            raise errors.BadRequest(
                f"the prompt has {len(prompt)} tokens{asked}; the model takes 1 to {info.context} together",
                param="max_tokens" if most and room > 0 else "messages",
            )
        return Request(tuple(prompt), most or min(default, room), sampling=self.sampling(info.defaults))


class ChatBody(Common):
    """`POST /v1/chat/completions`."""

    messages: Annotated[list[Turn], pydantic.Field(min_length=1, max_length=2048)]
    max_completion_tokens: Annotated[int, pydantic.Field(ge=1)] | None = None


class CompletionBody(Common):
    """`POST /v1/completions`; the prompt is continued as it is, without a chat template."""

    prompt: str | list[int] | list[str]
    echo: bool | None = None
