"""What the rest may know of an engine: tokens in, a stream of tokens out, adapters by id, health.

An `Engine` object is ready from the start: whoever makes one has loaded the model and run it once. Engines know no
text: templates, stop strings and detokenising are the same on every engine. They know no limits either: how
many requests may wait is decided before they get here.
"""

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

if TYPE_CHECKING:
    import torch

Finish = Literal["stop", "length"]


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen; what is None is left to the model's own generation config."""

    do_sample: bool | None = None
    temperature: float | None = None
    top_k: int | None = None
    """0 turns it off."""
    top_p: float | None = None
    typical_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    no_repeat_ngram_size: int | None = None
    num_beams: int = 1
    early_stopping: bool = False
    length_penalty: float | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    """Taken from the score of each token that the answer already holds."""
    frequency_penalty: float | None = None
    """Taken once for each time that the answer holds the token."""
    logit_bias: Mapping[int, float] = field(default_factory=lambda: MappingProxyType({}))
    """Added to the scores of these tokens."""


class Form(NamedTuple):
    """What a grammar was made of."""

    kind: Literal["json", "regex", "choice"]
    value: Any
    """A JSON schema, a regular expression, or the texts to choose from."""


class Grammar(Protocol):
    """What may come next, told one token at a time; belongs to one request and is called from the engine's thread."""

    @property
    def form(self) -> Form:
        """For an engine that follows forms by itself."""

    def allowed(self) -> "torch.Tensor | None":
        """The tokens that may come next, bool [vocabulary] on the CPU; None: any. Stop tokens are tokens."""

    def accept(self, token: int) -> None:
        """Go on behind this token, which was chosen."""


@dataclass(frozen=True)
class Request:
    """One sequence to continue."""

    prompt: tuple[int, ...]
    max_new_tokens: int
    min_new_tokens: int = 0
    sampling: Sampling = Sampling()
    stop_ids: frozenset[int] | None = None
    """Tokens that end the sequence; None: the model's own."""
    adapters: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    """Adapter id to strength; their weighted sum is added to the base model."""
    logprobs: int | None = None
    """Tell the log probability of each chosen token, and of so many most likely ones (0: of none)."""
    grammar: Grammar | None = None
    at_once: bool = False
    """Nobody sees a part of it: an engine may tell many tokens at a time, which costs it less."""

    def with_adapters(self, strengths: Mapping[str, float]) -> "Request":
        """The same for other adapters."""
        return replace(self, adapters=strengths)


class Logprob(NamedTuple):
    """How likely a chosen token was under the model's own scores, before any wish of the request changed them."""

    chosen: float
    """Its natural logarithm."""
    top: tuple[tuple[int, float], ...] = ()
    """The most likely tokens with theirs, best first."""


class Delta(NamedTuple):
    """Some more tokens; the last delta has `finish`, and where that is `stop` its last token is the stop token."""

    tokens: tuple[int, ...]
    finish: Finish | None = None
    logprobs: tuple[Logprob, ...] = ()
    """One for each token, where the request asked for them."""


@dataclass(frozen=True)
class ModelInfo:
    """What an engine runs, and how."""

    kind: str
    """The engine's name, for people."""
    concurrency: int
    """How many requests run at the same time; further ones wait inside the engine in order."""
    context: int
    """Most tokens of prompt and answer together."""
    vocabulary: int
    stop_ids: frozenset[int]
    defaults: Sampling
    """What the model's own generation config sets."""
    features: frozenset[str]
    """Honoured of `Sampling` beyond temperature, top_k, top_p and seed; `logprobs` and `grammar` of `Request`."""
    dtype: str
    device: str
    notes: tuple[str, ...] = ()
    """What people should know: why it is not faster, why the context is not longer."""


class Health(NamedTuple):
    """Whether the engine still works; one that does not never will again."""

    alive: bool
    reason: str = ""
    stalled_seconds: float = 0.0
    """For how long a running request has produced nothing; 0 when idle."""


class Stats(NamedTuple):
    """How much is going on, and what was done since the start."""

    running: int
    waiting: int
    kv_usage: float
    """Which part of the memory for keys and values is taken, 0 to 1."""
    prompt_tokens: int
    generated_tokens: int
    prefix_queries: int
    """Prompt tokens that were looked up among the prefixes at hand."""
    prefix_hits: int
    """Those of them that did not have to be computed."""
    preemptions: int
    steps: int
    step_seconds: float


class RequestRefused(ValueError):
    """The request cannot be run; the message says why. The engine goes on."""


class RequestFailed(RuntimeError):
    """The request was tried and failed; the engine goes on."""


class AdapterRefused(ValueError):
    """These files are no adapter for this model; the message says why."""


class EngineDown(RuntimeError):
    """The engine no longer works."""


class Engine(Protocol):
    """A loaded model."""

    @property
    def info(self) -> ModelInfo:
        """What it runs; never changes."""

    def generate(self, request: Request) -> AsyncGenerator[Delta, None]:
        """Stream the continuation. Closing the generator cancels the request, wherever it is.

        The first delta has no tokens and says that the request's turn has come: until then it waits.

        Raises RequestRefused, RequestFailed or EngineDown.
        """

    async def load_adapter(self, adapter: str, folder: Path) -> None:
        """Make the adapter in `folder` available under the id `adapter`, between requests; raises AdapterRefused."""

    async def unload_adapter(self, adapter: str) -> None:
        """Forget an adapter, after the requests that were accepted before."""

    def health(self) -> Health:
        """The state right now; cheap."""

    def stats(self) -> Stats:
        """What it does right now and did since the start; cheap."""

    async def stop(self) -> None:
        """End its thread; running requests fail with EngineDown."""
