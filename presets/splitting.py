"""Among how many GPUs vLLM can divide a model, as its layers insist on it. Pure.

vLLM gives each GPU a whole number of attention heads (vllm/config/model.py), of heads of keys and values or one of them
that others have too (the attention of each model), an equal part of each MLP, in whole blocks where its weights are
stored in blocks (fp8_utils.py), and of the vocabulary, filled up to a multiple of 64 (vocab_parallel_embedding.py).
Anything else ends with an assertion, after the weights were fetched onto a node that is paid.
"""

from presets.facts import Shape

_MOST = 16
"""GPUs of a node: no size has more."""
_PADDING = 64


def splits(shape: Shape | None) -> tuple[int, ...]:
    """All such numbers of GPUs of one node, rising from 1; powers of two where the numbers are not known."""
    return tuple(count for count in range(1, _MOST + 1) if _splits(shape, count))


def shares(counts: tuple[int, ...], gpus: int) -> int:
    """With how many of so many GPUs it works: the most of these counts."""
    return max((count for count in counts if count <= gpus), default=1)


def _splits(shape: Shape | None, count: int) -> bool:
    if shape is None:
        return _PADDING % count == 0
    vocabulary = -(-(shape.vocabulary or _PADDING) // _PADDING) * _PADDING
    even = (shape.heads, shape.intermediate, shape.pieces, vocabulary)
    keys = shape.kv_heads % count == 0 or count % shape.kv_heads == 0
    return keys and all(number % count == 0 for number in even if number)
