"""How much GPU memory a model needs, in GiB: to serve it and to tune it. An estimate that errs on the safe side.

Sources: weights and shapes of models/*.yaml; bytes per parameter of 4-bit weights as bitsandbytes stores them (nf4 with
double quantisation: 0.516); activation bytes per token and layer fitted on a Llama-type layer with LoRA on all linears.
"""

import presets

_GIB = 2**30
_USABLE = 0.95
"""Share of a card that is ours: the driver and other contexts keep the rest."""


def serving_gib(model: presets.Preset, *, tokens: int = 2048) -> float:
    """GiB on one GPU to serve `model` with a key-value cache for `tokens` tokens."""
    cache = tokens * _cache_bytes_per_token(model.shape) / _GIB
    return 1.02 * model.weights_gib + cache + 1.75


def tuning_gib(model: presets.Preset, method: str, *, tokens: int, rank: int, recompute: bool = True) -> float:
    """GiB on one GPU to tune `model` with micro-batches of `tokens` tokens in all.

    `recompute`: activations are computed again for the backward pass, so that one layer's are held at a time.
    """
    s = model.shape
    head = s.hidden // s.heads
    cache = s.kv_heads * head
    linear = s.layers * (2 * s.hidden * s.heads * head + 2 * s.hidden * cache + 3 * s.hidden * s.intermediate)
    embeddings = s.vocabulary * s.hidden * (1 if s.tied_embeddings else 2)
    per_layer_io = 4 * s.hidden + 2 * (s.hidden + cache) + 3 * (s.hidden + s.intermediate)
    adapter = s.layers * rank * per_layer_io
    weights = (0.516 if method == "qlora" else 2) * linear + 2 * embeddings
    dequantised = 2 * s.hidden * s.intermediate if method == "qlora" else 0
    boundaries = 2 * s.hidden * s.layers * tokens
    layer = tokens * (25.5 * s.hidden + 8.5 * s.intermediate + 4 * cache) * (1 if recompute else s.layers)
    loss = tokens * s.vocabulary * 10  # logits of the whole micro-batch, in both precisions and as gradient
    return 1.06 * (weights + 16 * adapter + dequantised + boundaries + max(layer, loss)) / _GIB + 0.75


def fits(needed_gib: float, size: presets.Size) -> bool:
    """Whether `needed_gib` and a margin fit one GPU of `size`: neither server nor trainer spreads over several yet."""
    return needed_gib * 1.1 <= size.gpu_memory_gib / size.gpus * _USABLE


def _cache_bytes_per_token(shape: presets.Shape) -> int:
    return 2 * 2 * shape.layers * shape.kv_heads * (shape.hidden // shape.heads)
