"""What is known of a model and of a GPU size, as types: their fields, units and what a missing value means.

Data only: where the values lie is `catalogue.py`'s matter, what follows from them `memory.py`'s.
"""

import datetime
from collections.abc import Mapping
from typing import Literal

import pydantic

Access = Literal["public", "gated", "private_image"]
Runtime = Literal["transformers", "vllm"]
Capability = tuple[int, int]

NO_CUDA: Capability = (0, 0)
"""Below every CUDA compute capability: a card of another vendor."""


class Facts(pydantic.BaseModel):
    """Frozen, and refuses keys it does not know."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)


class Shape(Facts):
    """The architecture numbers that memory follows from (the model's config.json); None where not known for sure."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int | None = None
    """Where it is not hidden / heads."""
    intermediate: int | None = None
    pieces: int | None = None
    """Into how many equal parts its MLPs, experts or heads that are no attention can be cut, where `intermediate` does
    not say it: 12 for experts of a width of 1536 that are stored in blocks of 128."""
    vocabulary: int | None = None
    tied_embeddings: bool | None = None
    """Whether the head is the embedding's matrix."""
    kind: Literal["dense", "experts", "latent", "hybrid"] = "dense"
    """dense: every layer has plain attention and one MLP. latent: attention over a compressed cache (MLA). experts: the
    MLP is one of several. hybrid: some layers are no attention at all."""
    gated: bool = True
    """Whether the MLP has three matrices or two."""
    full_layers: int | None = None
    """Layers whose attention sees the whole context, where it is not all of them; the others see `window`."""
    window: int | None = None
    """Tokens."""

    @property
    def head_size(self) -> int:
        """Numbers in one head's key."""
        return self.head_dim or self.hidden // self.heads

    @property
    def complete(self) -> bool:
        """Whether every matrix of the model follows from this."""
        return self.kind == "dense" and None not in {self.intermediate, self.vocabulary, self.tied_embeddings}


class Chat(Facts):
    """What the model's chat template does, as far as it is known for sure."""

    template: str
    """The family of templates it belongs to."""
    system: Literal["own", "folded", "ignored"] | None = None
    """A system message has a turn of its own, goes into the first question, or is left out in silence."""
    stop: tuple[str, ...] = ()
    """Tokens that end an answer."""


class Preset(Facts):
    """One model."""

    name: str
    hub_id: str
    revision: str | None
    """The commit on the hub; None where none is pinned, so that what is served follows the hub."""
    image: str | None = None
    """A container image that holds its files; None where they come from the hub."""
    license: str | None
    """The hub's name of it."""
    access: Access
    """gated: the hub wants a token of someone who accepted the licence. private_image: so too, and KAITO took it from
    an image of the user's own."""
    upstream: Literal["alias", "catalogue", "deprecated", "removed", "hub"]
    """How KAITO v0.12 takes the name: as one of its short names, as a hub id of its catalogue, not any more; or `hub`,
    a model that nobody has written down."""
    architecture: str
    context_limit: int
    """Tokens."""
    weights_gib: float
    """As stored on the hub."""
    transformers_gib: float | None = None
    """As loaded by the `transformers` runtime, where that differs."""
    cache_bytes_per_token: int | None
    """Keys and values of one token in 16 bits, all layers taken as full attention; None where not known."""
    quantisation: str | None = None
    """As stored on the hub; None for 16 bits."""
    runtimes: tuple[Runtime, ...]
    """What can serve it: `transformers` is the engine of serving/, `vllm` vLLM's."""
    tunable: bool
    lora_targets: tuple[str, ...] = ()
    """Last names of its linear layers; empty where not known."""
    chat: Chat | None = None
    shape: Shape | None = None
    limits: tuple[str, ...] = ()
    """What is known not to work."""

    @property
    def hub_revision(self) -> str:
        """What to ask the hub for: the pinned commit, or whatever is newest."""
        return self.revision or "main"


class Size(Facts):
    """One GPU size of a cloud."""

    name: str
    cloud: Literal["azure", "aws", "arc"]
    gpu: str
    vendor: Literal["nvidia", "amd", "aws", "other"] = "nvidia"
    arch: Literal["amd64", "arm64"] = "amd64"
    """Of the host: images are built for one."""
    gpus: int
    """Devices that a node offers; 0 where not known. A slice of a card counts as one."""
    gpu_memory_gib: float
    """Of all GPUs of one node together; 0 where not known."""
    slice: float = 1
    """Share of a card that each device is; slices cannot be joined."""
    usable: float = 0.95
    """Share of a device's memory that a process gets: driver and error correction keep the rest."""
    capability: str | None = None
    """CUDA compute capability, `major.minor`; None for other vendors' cards."""
    quota_family: str = ""
    vcpus: int = 0
    """Of a node: clouds count quotas in these."""
    prices: Mapping[str, float] = {}
    """US dollars per hour, on demand, Linux: by region, and the `lowest` and `highest` of all regions."""
    priced_regions: tuple[str, ...] = ()
    """Regions whose price was looked up: one that is missing in `prices` does not sell this size."""
    priced_on: datetime.date | None = None
    preview: bool = False
    """Not for everybody yet, and not proposed to anybody."""
    retired_on: datetime.date | None = None
    """The last day, also one to come, in the public cloud."""
    instead: tuple[str, ...] = ()
    """What to take in its place, nearest first."""
    note: str = ""

    def __hash__(self) -> int:
        return hash(self.name)

    @property
    def usd_per_hour(self) -> float | None:
        """The lowest price of all regions, an indication and not a bill; None where not known."""
        return self.prices.get("lowest")

    def usd(self, region: str | None = None) -> float | None:
        """Dollars per hour in a region, as `catalogue.region` names it; of one not looked up, the lowest of all.

        None where it is not sold or no price is known.
        """
        return self.prices.get(region or "lowest") if region in self.priced_regions else self.usd_per_hour

    def retired(self, on: datetime.date) -> bool:
        """Whether the cloud gives out no more of it on that day."""
        return self.retired_on is not None and on >= self.retired_on

    @property
    def gib_per_gpu(self) -> float:
        """GiB of one device, as the vendor counts them."""
        return self.gpu_memory_gib / self.gpus if self.gpus else 0.0

    @property
    def compute(self) -> Capability:
        """The capability, comparable."""
        if self.capability is None:
            return NO_CUDA
        major, _, minor = self.capability.partition(".")
        return int(major), int(minor)
