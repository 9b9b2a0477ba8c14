"""What the operator asks of the serving image and what it answers: the one module of it that the operator imports.

The operator writes a `ServingConfig` and a list of `Adapter` as JSON into one ConfigMap, mounted as a folder. The
config is read once, the adapters whenever the file changes. `GET /v1/models` answers a `Served`; a process that ends
badly, the server's or a check's, leaves a `Failure` as its termination message. Nothing here imports torch or ray.
"""

import enum
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import pydantic

from artifacts.weights.config import Found, Model

PORT = 5000
CONFIG_FILE = "serving.json"
ADAPTERS_FILE = "adapters.json"

REGISTRY_AUTH = Path("/etc/kaito/registry/config.json")
"""Where the merged pull secrets' `.dockerconfigjson` is mounted; the file may be missing."""

API_KEY_FILE = Path("/etc/kaito/api-key/API_KEY")
"""Where the Secret with the keys that clients must name is mounted, if there is one: its key API_KEY."""

CACHE = Path("/mnt/cache")
"""Where the claim is mounted that keeps weights, if there is one."""

MODEL = Path("/mnt/model")
"""Where the model's image is mounted, if the kubelet pulls it."""

SCRATCH = Path("/mnt/scratch")
"""A writable volume for weights and adapters."""

SEVERAL = "serving.several:application"
"""What Ray Serve runs where several nodes serve together; its argument `config` is the file's path."""


Runtime = Literal["transformers", "vllm"]
ToolCallParser = Literal["hermes", "llama3_json", "mistral", "phi4_mini_json"]
"""A way of writing calls of tools, by vLLM's name of it; `serving.text.tools` reads them."""


class Exit(enum.IntEnum):
    """Exit codes of the image, numbered as the tuning image's.

    64, 65, 126, 127 and 128+n belong to Argo's emissary, the kubelet and signals.
    """

    DONE = 0
    UNEXPECTED = 1
    USAGE = 2
    BAD_CONFIG = 10
    BAD_ADAPTER = 11
    BAD_MODEL = 12
    DOES_NOT_FIT = 20
    REGISTRY_AUTH = 30
    NETWORK = 40
    REGISTRY_UNAVAILABLE = 41
    NODE_TROUBLE = 42
    ENGINE_DIED = 43


class Strict(pydantic.BaseModel):
    """A frozen model that refuses keys it does not know."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)


class ServingConfig(Strict):
    """One server; a change of it is a new pod."""

    workspace: str
    """`namespace/name`, for messages."""
    name: str
    """The name that clients ask for: the preset's, or the user's."""
    model: Model
    port: int = PORT
    require_gpu: bool = False
    """End rather than serve on the CPU, where a pod that pays for a GPU cannot use it."""
    context: Annotated[int, pydantic.Field(ge=2)] | None = None
    """Most tokens of prompt and answer together; None, or more than the model takes: as many as it takes."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """Number type of the weights; `auto` is what the hardware computes in."""
    chat_template: str | None = None
    """A Jinja template in place of the model's own and the adapters'."""
    tool_call_parser: ToolCallParser | None = None
    """How the model writes calls of tools; None: in the way that its chat template teaches."""
    runtime: Runtime = "transformers"
    """Whose engine: this image's own, or vLLM's in the image serving-vllm."""
    vllm: dict[str, Any] = pydantic.Field(default_factory=dict)
    """Arguments of vLLM's engine, as its AsyncEngineArgs names them."""
    nodes: Annotated[int, pydantic.Field(ge=1)] = 1
    """So many nodes hold the model together, each with as many GPUs: vLLM's alone, in a cluster of Ray's."""


class Adapter(Strict):
    """One adapter beside the base model, from an image or from a mounted volume; a change of the list is no new pod."""

    name: str
    image: str = ""
    """An image with /data/adapter_config.json and /data/adapter_model.safetensors."""
    volume: str = ""
    """What messages call the volume; with `@sha256:...` only this adapter will do, see `serving.folders`."""
    folder: str = ""
    """Where it is mounted: adapter_config.json and adapter_model.safetensors lie at its top."""
    strength: Annotated[float, pydantic.Field(ge=0, le=1)] = 1.0

    @pydantic.model_validator(mode="after")
    def _comes_from_one_place(self) -> Self:
        if bool(self.image) == bool(self.volume) or bool(self.volume) != bool(self.folder):
            raise ValueError(f"adapter {self.name} needs an image, or a volume and the folder where it is mounted")
        return self

    @property
    def source(self) -> str:
        """Where it comes from, in one word: the image, or what the volume is called."""
        return self.image or self.volume


def keys_in(content: bytes) -> tuple[str, ...]:
    """The keys that a Secret's API_KEY holds, divided by commas or lines; raises ValueError without a word of them."""
    found = [part.strip() for part in content.replace(b"\n", b",").split(b",")]
    keys = tuple(part.decode("ascii", "replace") for part in found if part)
    if not keys:
        raise ValueError("is empty; write a key, or several, divided by commas")
    if not all(key.isascii() and key.isprintable() and " " not in key for key in keys):
        raise ValueError("has letters that no header carries; write keys of ASCII letters, digits and signs")
    return keys


def _distinct(adapters: tuple[Adapter, ...]) -> tuple[Adapter, ...]:
    for name, count in Counter(adapter.name for adapter in adapters).items():
        if count > 1:
            raise ValueError(f"the name {name} is listed twice; give each of inference.adapters a name of its own")
    return adapters


Adapters = pydantic.TypeAdapter(Annotated[tuple[Adapter, ...], pydantic.AfterValidator(_distinct)])
"""Reads and writes the adapters file: `Adapters.validate_json(text)`, `Adapters.dump_json(adapters)`."""


class AdapterStatus(Adapter):
    """One adapter of the list, as the server sees it now."""

    state: Literal["loaded", "loading", "failed"]
    digest: str = ""
    """Of the image or files that are served under this name, `sha256:...`; while a change fails, the earlier one's."""
    reason: str = ""
    """Why it failed, or what it waits for."""
    retryable: bool = True
    """Whether the same image or volume may work another time; the server tries again in any case."""
    failures: int = 0
    """How often in a row it failed: what is said again is told from what was said before."""


class Engine(pydantic.BaseModel):
    """How a server that has its model answers."""

    kind: str
    concurrent_requests: int
    """So many are answered at the same time."""
    requests: int
    """So many are there now, those that wait among them."""
    context: int
    """Most tokens of a prompt and its answer together."""
    features: tuple[str, ...]
    notes: tuple[str, ...]
    """Why requests are answered one at a time, or the context is not the model's own."""
    dtype: str
    device: str


class Served(pydantic.BaseModel):
    """The part of `GET /v1/models` that is ours; OpenAI's clients read `data` beside it."""

    ready: bool
    adapters: tuple[AdapterStatus, ...]
    """In the order of the adapters file; what is not listed is not served."""
    engine: Engine | None = None
    """None while the model is being loaded."""
    listing: str = ""
    """Why the adapters file cannot be used; what it listed before is still served."""

    def lacks(self, wanted: tuple[Adapter, ...]) -> str:
        """What keeps the server from serving exactly `wanted`, or an empty string: what a roll-out polls."""
        if self.listing:
            return self.listing
        seen = {status.name: status for status in self.adapters}
        for adapter in wanted:
            status = seen.pop(adapter.name, None)
            if status is None or (status.source, status.strength) != (adapter.source, adapter.strength):
                return f"adapter {adapter.name}: the server has not read this change yet"
            if status.state != "loaded":
                return f"adapter {adapter.name}: {status.state}{': ' if status.reason else ''}{status.reason}"
        return f"adapter {min(seen)}: still listed" if seen else ""

    def refused(self, wanted: tuple[Adapter, ...]) -> dict[int, AdapterStatus]:
        """What of `wanted` failed and cannot work as it is, by its place in the list."""
        failed = {each.name: each for each in self.adapters if each.state == "failed" and not each.retryable}
        return {
            at: failed[adapter.name]
            for at, adapter in enumerate(wanted)
            if adapter.name in failed and failed[adapter.name].source == adapter.source
        }


class Failure(Strict):
    """The termination message of a server or check that failed."""

    reason: str
    """CamelCase, becomes the condition's reason."""
    message: str
    """Names the field or object, the value seen and the way out."""
    retryable: bool


class Checked(Strict):
    """The termination message of a check that ended well."""

    model: Found | None = None
    """What is known of the model, where it was asked for."""
