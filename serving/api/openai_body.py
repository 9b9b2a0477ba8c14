"""OpenAI's request bodies: what is honoured, what is inert, and that everything else is refused with its name.

Ignoring a field that changes the meaning would be a wrong answer without an error; refusing one that changes nothing
would turn clients away that send their defaults. The fields are those of OpenAI's reference and of vLLM 0.33. Knows no
routes.
"""

import difflib
from collections.abc import Collection, Mapping
from typing import Annotated, Any, ClassVar, Literal

import pydantic

from serving import errors
from serving.api import refusals
from serving.engine.protocol import ModelInfo, Request, Sampling

DEFAULT_CHAT_TOKENS = 1024
DEFAULT_COMPLETION_TOKENS = 16
MAX_STOPS = 4
ROLES = ("system", "developer", "user", "assistant", "tool")

Neutral = Mapping[str, tuple[Any, ...]]
"""Fields that are not honoured, and the values (beside null) under which that changes nothing."""

INERT = frozenset(
    {
        "user", "metadata", "store", "service_tier", "safety_identifier", "prediction", "request_id", "session_id",
        "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention", "cache_salt",
    }
)  # fmt: skip
"""Fields that change nothing in the answer."""

NEUTRAL: Neutral = {
    "n": (1,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "logprobs": (),
    "response_format": ({"type": "text"},),
    # vLLM's own
    "add_special_tokens": (),
    "allowed_token_ids": (),
    "bad_words": ([],),
    "ignore_eos": (False,),
    "include_stop_str_in_output": (False,),
    "kv_transfer_params": (),
    "length_penalty": (1,),
    "min_tokens": (0,),
    "priority": (0,),
    "prompt_logprobs": (),
    "return_token_ids": (False,),
    "return_tokens_as_token_ids": (False,),
    "skip_special_tokens": (True,),
    "spaces_between_special_tokens": (True,),
    "stop_token_ids": ([],),
    "structured_outputs": (),
    "truncate_prompt_tokens": (),
    "truncation_side": (),
    "use_beam_search": (False,),
    "vllm_xargs": ({},),
}
CHAT_NEUTRAL: Neutral = {
    "logprobs": (False,),
    "top_logprobs": (0,),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "audio": (),
    "moderation": (),
    "reasoning_effort": (),
    "verbosity": ("medium",),
    "web_search_options": (),
    # vLLM's own
    "add_generation_prompt": (True,),
    "add_special_tokens": (False,),
    "chat_template": (),
    "chat_template_kwargs": ({},),
    "continue_final_message": (False,),
    "documents": ([],),
    "echo": (False,),
    "include_reasoning": (True,),
    "media_io_kwargs": ({},),
    "mm_processor_kwargs": ({},),
    "thinking_token_budget": (),
}
COMPLETION_NEUTRAL: Neutral = {"best_of": (1,), "suffix": ("",), "add_special_tokens": (True,)}
STREAM_NEUTRAL: Neutral = {"include_obfuscation": (False,), "continuous_usage_stats": (False,)}

TURN_INERT = frozenset({"name", "tool_call_id", "annotations", "reasoning", "reasoning_content"})
"""What templates leave out, and answers of other servers have: clients send their messages back."""

TURN_NEUTRAL: Neutral = {"tool_calls": ([],), "function_call": (), "audio": (), "refusal": ()}

Unit = Annotated[float, pydantic.Field(gt=0, le=1)]


class Part(pydantic.BaseModel):
    """A part of a message's content; only text can be read."""

    type: Literal["text"]
    text: str


class Turn(pydantic.BaseModel):
    """One message."""

    model_config = pydantic.ConfigDict(extra="allow")

    role: str
    content: str | list[Part] | None = None

    def text(self) -> str:
        """The content as one text."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content or ())


class StreamOptions(pydantic.BaseModel):
    """`stream_options`."""

    model_config = pydantic.ConfigDict(extra="allow")

    include_usage: bool | None = None


class Common(pydantic.BaseModel):
    """What both kinds of completion have."""

    model_config = pydantic.ConfigDict(extra="allow", allow_inf_nan=False)

    asks: ClassVar[str]
    """The field that becomes the prompt."""
    neutral: ClassVar[Neutral] = NEUTRAL

    model: str | None = None
    temperature: Annotated[float, pydantic.Field(ge=0, le=2)] | None = None
    top_p: Unit | None = None
    top_k: Annotated[int, pydantic.Field(ge=-1)] | None = None
    min_p: Annotated[float, pydantic.Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, pydantic.Field(ge=refusals.PENALTY[0], le=refusals.PENALTY[1])] | None = None
    seed: Annotated[int, pydantic.Field(ge=0, lt=1 << 63)] | None = None
    max_tokens: Annotated[int, pydantic.Field(ge=1)] | None = None
    stop: str | list[str] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    @pydantic.model_validator(mode="after")
    def _nothing_unheard(self) -> "Common":
        """Not a ValueError: pydantic would put its own words around it."""
        _refuse_unheard(self, INERT, self.neutral)
        if self.stream_options:
            _refuse_unheard(self.stream_options, (), STREAM_NEUTRAL, within="stream_options.")
        if len(self.stops()) > MAX_STOPS:
            raise refusals.of_field("stop", self.stop, f"at most {MAX_STOPS} strings are taken")
        return self

    def stops(self) -> tuple[str, ...]:
        """The stop strings."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    def most(self) -> tuple[str, int | None]:
        """How many new tokens are asked for, and in which field."""
        return "max_tokens", self.max_tokens

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

    def request(self, prompt: list[int], info: ModelInfo, *, default: int) -> Request:
        """The engine's request; asking for more than fits is refused, the default is cut."""
        field, most = self.most()
        room = info.context - len(prompt)
        if not prompt:
            raise errors.BadRequest(f"{self.asks} has no tokens: write something", param=self.asks)
        if room < 1 or (most or 0) > room:
            asked = f" and {field} asks for {most} new ones" if most else ""
            remedy = f"ask for at most {room}" if room > 0 else "the prompt is too long, shorten it"
            raise errors.ContextExceeded(
                f"{self.asks} has {len(prompt)} tokens{asked}: this model's maximum context length is {info.context} "
                f"tokens, its answer's included; {remedy}",
                param=field if room > 0 else self.asks,
            )
        return Request(tuple(prompt), most or min(default, room), sampling=self.sampling(info.defaults))


class ChatBody(Common):
    """`POST /v1/chat/completions`."""

    asks: ClassVar[str] = "messages"
    neutral: ClassVar[Neutral] = {**NEUTRAL, **CHAT_NEUTRAL}

    messages: Annotated[list[Turn], pydantic.Field(min_length=1, max_length=2048)]
    max_completion_tokens: Annotated[int, pydantic.Field(ge=1)] | None = None

    @pydantic.model_validator(mode="after")
    def _turns_are_known(self) -> "ChatBody":
        refusals.check_roles([turn.role for turn in self.messages], ROLES)
        for at, turn in enumerate(self.messages):
            _refuse_unheard(turn, TURN_INERT, TURN_NEUTRAL, within=f"messages[{at}].")
            if turn.content is None:
                raise refusals.of_field(f"messages[{at}].content", None, "it must be a string or a list of text parts")
        return self

    def most(self) -> tuple[str, int | None]:
        """See `Common.most`."""
        if self.max_completion_tokens is not None:
            return "max_completion_tokens", self.max_completion_tokens
        return super().most()


class CompletionBody(Common):
    """`POST /v1/completions`; the prompt is continued as it is, without a chat template."""

    asks: ClassVar[str] = "prompt"
    neutral: ClassVar[Neutral] = {**NEUTRAL, **COMPLETION_NEUTRAL}

    prompt: str | list[int]
    echo: bool | None = None

    @pydantic.field_validator("prompt", mode="before")
    @classmethod
    def _one_alone(cls, prompt: object) -> object:
        """A list of one prompt is that prompt."""
        if not isinstance(prompt, list) or not prompt or isinstance(prompt[0], int):
            return prompt
        if len(prompt) > 1:
            raise refusals.of_field("prompt", prompt, f"it lists {len(prompt)} prompts; send one in each request")
        return prompt[0]


def _refuse_unheard(given: pydantic.BaseModel, inert: Collection[str], neutral: Neutral, *, within: str = "") -> None:
    """Refuse the first field that is neither honoured, inert nor neutral."""
    for field, value in (given.model_extra or {}).items():
        if value is None or field in inert or any(_same(value, other) for other in neutral.get(field, ())):
            continue
        if field in neutral:
            takes = [refusals.shown(other) for other in neutral[field]]
            remedy = f"it is not supported yet; leave it out{' or send ' if takes else ''}{' or '.join(takes)}"
        else:
            close = difflib.get_close_matches(field, [*type(given).model_fields, *inert, *neutral], n=1)
            remedy = f"this API has no such field; {f'is it {close[0]}?' if close else 'leave it out'}"
        raise refusals.of_field(f"{within}{field}", value, remedy)


def _same(value: object, other: object) -> bool:
    """Equal, as JSON sees it: true is not 1."""
    return value == other and isinstance(value, bool) == isinstance(other, bool)
