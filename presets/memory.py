"""How much GPU memory a model needs to be served and to be tuned, part by part, and which sizes have it.

Pure arithmetic in GiB that errs on the safe side. A server uses one GPU of a node where that holds the model, else all
of them, each with a part of it; a trainer uses all of them, each with the whole model, so that one has to hold it.
"""

import dataclasses
import datetime
import functools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from presets import catalogue
from presets.facts import Preset, Shape, Size
from presets.kernels import PINNED, Kernels

_GIB = 2**30
MARGIN = 1.1
"""What an estimate may be short of the truth: 11 % against published figures (tests/presets)."""
BYTES: Mapping[str, float] = {"16 bits": 2.0, "8 bits": 1.0, "4 bits": 0.5625, "4 bits twice": 0.516}
"""Of one parameter as bitsandbytes stores it, measured; twice: the scales of 4-bit blocks are quantised too."""
_COMMUNICATOR = 0.5
"""GiB that GPUs of one node take to talk to each other: buffers of NCCL's, an assumption."""
_LOADING = 1.02
"""Weights in memory over weights in files, as KAITO's estimator has it."""


@dataclasses.dataclass(frozen=True)
class Need:
    """GiB on one GPU, part by part."""

    parts: Mapping[str, float]

    @property
    def gib(self) -> float:
        """All parts together."""
        return sum(self.parts.values())


class Room(NamedTuple):
    """GiB that a server sets aside for adapters as it starts, whether they come or not."""

    each: float = 0.0
    """On every GPU, however many share a layer."""
    divided: float = 0.0
    """That they divide among each other."""


def serving(model: Preset, *, context: int = 2048, adapters: float = 0.0) -> Need:
    """What one GPU holds to serve `model`, with a cache for `context` tokens in all and so many GiB for `adapters`.

    Weights as KAITO's estimator counts them; the runtime's part is the CUDA context (0.75) and the activations and
    logits of a batch (1.0).
    """
    weights = model.transformers_gib or model.weights_gib
    parts = {"weights": _LOADING * weights, "cache": cache_bytes(model, context) / _GIB, "runtime": 1.75}
    return Need(parts | ({"adapters": adapters} if adapters else {}))


def room(shape: Shape, columns: int, *, width: int = 2) -> Room:
    """What vLLM sets aside for adapters: `columns` is max_loras x max_lora_rank, `width` the bytes of a number.

    Both factors of every slot on every linear layer, as `create_lora_weights` of vllm/lora/layers allocates them. A
    layer that is divided by its outputs has the factor of its inputs whole on every GPU, one that is divided by its
    inputs that of its outputs; embedding and head have both. Taken for all of these, and of queries, keys, values, gate
    and up each its own, though some models have no such head or one factor for them together. For a complete shape.
    """
    assert shape.vocabulary is not None
    whole = shape.layers * (7 if shape.gated else 6) * shape.hidden
    divided = _adapter(shape, 1) - whole
    each = whole + 2 * (shape.vocabulary + shape.hidden)
    return Room(*(columns * width * numbers / _GIB for numbers in (each, divided)))


def uneven(model: Preset) -> float:
    """GiB by which the fullest of several GPUs may exceed its share of a model whose layers are laid onto them.

    A layer is not cut, and neither are the embedding and the head.
    """
    shape = model.shape or guess(model.weights_gib)
    weights = _LOADING * (model.transformers_gib or model.weights_gib)
    return max(weights / shape.layers, 2.0 * (shape.vocabulary or 262_144) * shape.hidden / _GIB)


def cache_bytes(model: Preset, context: int) -> float:
    """Bytes of keys and values of `context` tokens in 16 bits.

    KAITO takes every layer as full attention; layers with a window keep no more than the window's tokens.
    """
    shape = model.shape or guess(model.weights_gib)
    per_token = model.cache_bytes_per_token or 4 * shape.layers * shape.kv_heads * shape.head_size
    if shape.full_layers is None or shape.window is None:
        return float(per_token * context)
    windowed = shape.layers - shape.full_layers
    return per_token / shape.layers * (shape.full_layers * context + windowed * min(context, shape.window))


def tuning(
    model: Preset,
    method: str,
    *,
    tokens: int,
    rank: int,
    recompute: bool = True,
    head: Literal["whole", "chunked"] | None = None,
    stored: str | None = None,
    gpus: int = 1,
) -> Need:
    """What one GPU holds to tune `model` with micro-batches of `tokens` tokens in all, if it is one of `gpus`.

    Linear layers of qlora as `stored` (a key of BYTES, 4 bits twice by default), all else in 16 bits; 16 bytes
    for each parameter of the adapter, which is on all linear layers: weight, gradient and two moments in 32 bits.
    Activations are fitted to what a Llama-type layer with LoRA saves for the backward pass.
    `recompute`: they are computed again then, so that one layer's are held at a time. `head`: the loss is taken over
    the logits of the whole micro-batch, in both precisions and as a gradient; or chunk by chunk, as the trainer does by
    itself where it knows the head. Several GPUs add up their gradients, of which each holds a copy.
    A model whose shape is not known is taken as the one that needs most.
    """
    head = head or ("chunked" if model.architecture in plain_heads() and model.shape else "whole")
    s = model.shape if model.shape and model.shape.complete else guess(model.weights_gib)
    assert s.intermediate is not None
    linear = linear_parameters(s)
    each = BYTES[(stored or "4 bits twice") if method == "qlora" else "16 bits"]
    parts = {
        "weights": each * linear + 2 * (parameters(s) - linear),
        "adapter": 16.0 * _adapter(s, rank),
        "dequantised layer": 2.0 * s.hidden * s.intermediate if each < 2 else 0.0,
        **_activations(s, tokens, recompute=recompute, chunked=head == "chunked"),
        "exchange": 4.0 * _adapter(s, rank) if gpus > 1 else 0.0,
    }
    parts["fragments"] = 0.06 * sum(parts.values())
    needed = {name: part / _GIB for name, part in parts.items() if part or name == "dequantised layer"}
    return Need(needed | {"CUDA": 0.75 + (_COMMUNICATOR if gpus > 1 else 0.0)})


def trained(model: Preset, rank: int) -> int:
    """Parameters of a LoRA adapter on all linear layers of `model`; more than it has where its shape is not known."""
    shape = model.shape if model.shape and model.shape.complete else guess(model.weights_gib)
    return _adapter(shape, rank)


def fewer(tokens: int, longest: int) -> int:
    """What a trainer computes at once after so many tokens were too many: half, down to the longest row."""
    return max(longest, tokens // 2)


@functools.cache
def plain_heads() -> frozenset[str]:
    """Architectures whose loss the trainer makes chunk by chunk."""
    return frozenset(catalogue.load(Path(__file__).parent / "architectures.yaml")["plain_heads"])


def _activations(s: Shape, tokens: int, *, recompute: bool, chunked: bool) -> dict[str, float]:
    """Bytes that the backward pass needs. A layer that is computed again and the logits are not held together."""
    assert s.intermediate is not None
    assert s.vocabulary is not None
    logits = min(tokens, 256) * s.vocabulary * 8.0 if chunked else tokens * s.vocabulary * 10.0
    layer = tokens * (25.5 * s.hidden + 8.5 * s.intermediate + 4 * s.kv_heads * s.head_size)
    if not recompute:
        return {"activations": s.layers * layer, "logits": logits}
    largest = {"logits": logits} if logits > layer else {"activations": layer}
    return {"layer inputs": 2.0 * s.hidden * s.layers * tokens, **largest}


def guess(weights_gib: float) -> Shape:
    """A shape for weights of which nothing else is known, chosen to need more than the models that are known.

    Deeper for its width than any of them, with keys and values of every head and the largest vocabulary.
    """
    hidden = 128 * max(1, round(math.cbrt(1.5 * weights_gib * _GIB) / 128))
    return Shape(
        layers=math.ceil(hidden / 48),
        hidden=hidden,
        heads=hidden // 128,
        kv_heads=hidden // 128,
        intermediate=4 * hidden,
        vocabulary=262_144,
        tied_embeddings=False,
    )


def parameters(shape: Shape) -> int:
    """Parameters of a complete shape, norms and biases (a thousandth) left out."""
    assert shape.vocabulary is not None
    return linear_parameters(shape) + shape.vocabulary * shape.hidden * (1 if shape.tied_embeddings else 2)


def linear_parameters(s: Shape) -> int:
    """Parameters of all linear layers but the head."""
    assert s.intermediate is not None
    attention = 2 * s.hidden * s.heads * s.head_size + 2 * s.hidden * s.kv_heads * s.head_size
    return s.layers * (attention + (3 if s.gated else 2) * s.hidden * s.intermediate)


def _adapter(s: Shape, rank: int) -> int:
    """Parameters of a LoRA adapter on all linear layers."""
    assert s.intermediate is not None
    attention = 2 * (s.hidden + s.heads * s.head_size) + 2 * (s.hidden + s.kv_heads * s.head_size)
    return s.layers * rank * (attention + (3 if s.gated else 2) * (s.hidden + s.intermediate))


def fits(needed_gib: float, size: Size) -> bool:
    """Whether `needed_gib` and a margin fit one GPU of `size`."""
    return needed_gib * MARGIN <= size.gib_per_gpu * size.usable


def cheapest(
    needed_gib: float,
    *,
    region: str | None = None,
    has: Kernels = PINNED,
    cloud: str = "azure",
    on: datetime.date | None = None,
) -> list[Size]:
    """The sizes of a cloud that hold `needed_gib` on one GPU and can run the images, cheapest first.

    Not those retired on that day (today's, if none is given), in preview, whose GPUs cannot run the kernels that the
    images have, of arm64 hosts, or not sold in the region. Sizes without a price come last.
    """
    day = on or datetime.datetime.now(datetime.UTC).date()
    able = [
        size
        for size in catalogue.sizes().values()
        if size.cloud == cloud and has.run_on(size.compute) and size.arch == "amd64"
        if not size.preview and not size.retired(day)
    ]
    priced = [(size.usd(region), size) for size in able if fits(needed_gib, size)]
    sold = [(usd, size) for usd, size in priced if usd is not None or region not in size.priced_regions]
    return [size for _, size in sorted(sold, key=lambda pair: (pair[0] is None, pair[0] or 0, pair[1].gpus))]
