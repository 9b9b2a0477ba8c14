"""OpenAI's request bodies: what is honoured, field by field. What is not is in `openai_fields`. Knows no routes."""

from typing import Annotated, Any, ClassVar, Literal

import pydantic
import pydantic_core

from serving import errors
from serving.api import documented, refusals
from serving.api import openai_fields as fields
from serving.api.openai_forms import Form, ResponseFormat, Structured, wanted
from serving.api.openai_tools import Choice, Tool, ToolCall, ToolChoice
from serving.engine.protocol import ModelInfo, Request, Sampling
from serving.service import Loaded
from serving.text.chat import Message

DEFAULT_CHAT_TOKENS = 1024
DEFAULT_COMPLETION_TOKENS = 16
MAX_STOPS = 4
MAX_LOGPROBS = 20
MAX_PROMPTS = 256
MAX_BIASES = 1024
ROLES = ("system", "developer", "user", "assistant", "tool")

Unit = Annotated[float, pydantic.Field(gt=0, le=1)]
Share = Annotated[float, pydantic.Field(ge=0, le=1)]
Penalty = Annotated[float, pydantic.Field(ge=-2, le=2)]
Logprobs = Annotated[int, pydantic.Field(ge=0, le=MAX_LOGPROBS)]
Token = Annotated[int, pydantic.Field(ge=0)]


def _few(biases: object) -> object:
    """Asked before any is looked at: a report of each wrong one in a body of megabytes takes seconds."""
    if isinstance(biases, dict) and len(biases) > MAX_BIASES:
        raise pydantic_core.PydanticCustomError("biases", "an object of at most {most} tokens", {"most": MAX_BIASES})
    return biases


Biases = Annotated[dict[Token, Annotated[float, pydantic.Field(ge=-100, le=100)]], pydantic.BeforeValidator(_few)]


class Part(pydantic.BaseModel):
    """A part of a message's content; only text can be read."""

    type: Literal["text"]
    text: str


class Turn(pydantic.BaseModel):
    """One message."""

    model_config = pydantic.ConfigDict(extra="allow")

    role: Annotated[str, pydantic.WithJsonSchema({"enum": [*ROLES]})]
    content: str | refusals.Many[Part] | None = None
    tool_calls: refusals.Many[ToolCall] | None = None
    tool_call_id: str | None = None

    def text(self) -> str:
        """The content as one text."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content or ())

    def message(self, at: int) -> Message:
        """As templates take it."""
        message: dict[str, Any] = {"role": self.role, "content": self.text()}
        if self.tool_calls:
            told = [call.told(f"messages[{at}].tool_calls[{number}]") for number, call in enumerate(self.tool_calls)]
            message["tool_calls"] = told
        if self.role == "tool" and self.tool_call_id:
            message["tool_call_id"] = self.tool_call_id
        return message


Turns = Annotated[refusals.Many[Turn], pydantic.Field(min_length=1, max_length=refusals.MAX_MESSAGES)]


class StreamOptions(pydantic.BaseModel):
    """`stream_options`."""

    model_config = pydantic.ConfigDict(extra="allow")

    include_usage: bool | None = None


class Common(pydantic.BaseModel):
    """What both kinds of completion have."""

    model_config = pydantic.ConfigDict(extra="allow", allow_inf_nan=False)

    asks: ClassVar[str]
    """The field that becomes the prompt."""
    neutral: ClassVar[fields.Neutral] = fields.NEUTRAL

    model: str | None = None
    adapter_strength: Annotated[Share | None, pydantic.Field(examples=[None])] = None
    n: Annotated[int, pydantic.Field(ge=1, strict=True)] | None = None
    temperature: Annotated[float, pydantic.Field(ge=0, le=2)] | None = None
    top_p: Unit | None = None
    top_k: Annotated[int, pydantic.Field(ge=-1)] | None = None
    min_p: Share | None = None
    repetition_penalty: Annotated[float, pydantic.Field(ge=refusals.PENALTY[0], le=refusals.PENALTY[1])] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: Biases | None = None
    seed: Annotated[int, pydantic.Field(ge=0, lt=1 << 63)] | None = None
    max_tokens: Annotated[int, pydantic.Field(ge=1)] | None = None
    min_tokens: Annotated[int, pydantic.Field(ge=0)] | None = None
    stop: str | refusals.Many[str] | None = None
    stop_token_ids: refusals.Many[Token] | None = None
    ignore_eos: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    response_format: ResponseFormat | None = None
    guided_json: str | dict[str, Any] | None = None
    structured_outputs: Structured | None = None

    @pydantic.model_validator(mode="after")
    def _nothing_unheard(self) -> "Common":
        """Not a ValueError: pydantic would put its own words around it."""
        fields.refuse_unheard(self, fields.INERT, self.neutral)
        if self.stream_options:
            fields.refuse_unheard(self.stream_options, (), fields.STREAM_NEUTRAL, within="stream_options.")
        if self.structured_outputs:
            fields.refuse_unheard(self.structured_outputs, (), fields.FORM_NEUTRAL, within="structured_outputs.")
        if len(self.stops()) > MAX_STOPS:
            raise refusals.of_field("stop", self.stop, f"at most {MAX_STOPS} strings are taken")
        if self.form() and self.ignore_eos:
            raise refusals.of_field("ignore_eos", self.ignore_eos, "an answer in a given form ends by itself")
        return self

    def stops(self) -> tuple[str, ...]:
        """The stop strings."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    def form(self) -> Form | None:
        """The form that the answer must have."""
        return wanted(self.response_format, self.guided_json, self.structured_outputs)

    def most(self) -> tuple[str, int | None]:
        """How many new tokens are asked for, and in which field."""
        return "max_tokens", self.max_tokens

    def top(self) -> int | None:
        """How many likely tokens are told beside each one's log probability; None: not even that."""
        return None

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
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            logit_bias=self.logit_bias or {},
            seed=self.seed,
        )

    def request(self, prompt: list[int], loaded: Loaded, *, default: int) -> Request:
        """The engine's request; asking for more than fits is refused, the default is cut."""
        info = loaded.engine.info
        new = self._new_tokens(prompt, info, default)
        if (self.min_tokens or 0) > new:
            raise refusals.of_field("min_tokens", self.min_tokens, f"at most {new} new tokens are made")
        for field, tokens in (("stop_token_ids", self.stop_token_ids), ("logit_bias", self.logit_bias)):
            for token in tokens or ():
                if token >= info.vocabulary:
                    raise refusals.of_field(field, token, f"a token of this model is 0 to {info.vocabulary - 1}")
        ends = frozenset() if self.ignore_eos else loaded.stop_ids
        request = Request(
            prompt=tuple(prompt),
            max_new_tokens=new,
            min_new_tokens=self.min_tokens or 0,
            sampling=self.sampling(info.defaults),
            stop_ids=ends | frozenset(self.stop_token_ids or ()),
            logprobs=self.top(),
        )
        refusals.check_sampling(request.sampling, info)
        refusals.check_feature("logprobs", request.logprobs, info)
        return request

    def _new_tokens(self, prompt: list[int], info: ModelInfo, default: int) -> int:
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
        return most or min(default, room)


class ChatBody(Common):
    """`POST /v1/chat/completions`."""

    model_config = documented.like({"messages": documented.HELLO, "max_tokens": 16})

    asks: ClassVar[str] = "messages"
    neutral: ClassVar[fields.Neutral] = {**fields.NEUTRAL, **fields.CHAT_NEUTRAL}

    messages: Turns
    max_completion_tokens: Annotated[int, pydantic.Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Logprobs | None = None
    tools: Annotated[refusals.Many[Tool], pydantic.Field(max_length=128)] | None = None
    tool_choice: Choice | ToolChoice | None = None
    parallel_tool_calls: bool | None = None

    @pydantic.model_validator(mode="after")
    def _turns_are_known(self) -> "ChatBody":
        check_turns(self.messages)
        if self.top_logprobs and not self.logprobs:
            raise refusals.of_field("top_logprobs", self.top_logprobs, "it goes with logprobs: true")
        form = self.form()
        if form and self.tools and self.tool_choice != "none":
            told = 'an answer in this form can call no tools; leave one out, or send tool_choice: "none"'
            raise refusals.of_field(form.path, "set", told)
        return self

    def most(self) -> tuple[str, int | None]:
        """See `Common.most`."""
        if self.max_completion_tokens is not None:
            return "max_completion_tokens", self.max_completion_tokens
        return super().most()

    def top(self) -> int | None:
        """See `Common.top`."""
        return (self.top_logprobs or 0) if self.logprobs else None


class CompletionBody(Common):
    """`POST /v1/completions`; prompts are continued as they are, without a chat template."""

    model_config = documented.like({"prompt": "Once upon a time", "max_tokens": 16})

    asks: ClassVar[str] = "prompt"
    neutral: ClassVar[fields.Neutral] = {**fields.NEUTRAL, **fields.COMPLETION_NEUTRAL}

    prompt: str | refusals.Many[Token] | refusals.Many[str] | refusals.Many[refusals.Many[Token]]
    echo: bool | None = None
    logprobs: Logprobs | None = None

    @pydantic.field_validator("prompt", mode="before")
    @classmethod
    def _few_prompts(cls, prompt: Any) -> Any:
        """Refused before anybody looks at each of a million."""
        if isinstance(prompt, list) and len(prompt) > MAX_PROMPTS and not isinstance(prompt[0], int):
            told = f"it lists {len(prompt)} prompts; at most {MAX_PROMPTS} are taken"
            raise refusals.of_field("prompt", prompt, told)
        return prompt

    def top(self) -> int | None:
        """See `Common.top`."""
        if self.logprobs is not None and self.echo:
            raise refusals.of_field(
                "echo", self.echo, "log probabilities are of new tokens alone; leave one of them out"
            )
        return self.logprobs

    def prompts(self) -> list[str | list[int]]:
        """The prompts, one or several."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if not self.prompt:
            raise refusals.of_field("prompt", self.prompt, "it lists no prompt")
        several = [each for each in self.prompt if not isinstance(each, int)]
        return [*several] or [[each for each in self.prompt if isinstance(each, int)]]


def check_turns(turns: list[Turn]) -> None:
    """Refuse messages that templates would drop or misread."""
    refusals.check_roles([turn.role for turn in turns], ROLES)
    for at, turn in enumerate(turns):
        fields.refuse_unheard(turn, fields.TURN_INERT, fields.TURN_NEUTRAL, within=f"messages[{at}].")
        if turn.content is None and not turn.tool_calls:
            raise refusals.of_field(f"messages[{at}].content", None, "it must be a string or a list of text parts")
        if turn.tool_calls and turn.role != "assistant":
            raise refusals.of_field(f"messages[{at}].tool_calls", "set", "only an assistant calls tools")
