"""A preset for a model of the hub that no file here describes, made from its config.json and the size of its weights.

Pure but for `from_folder`: whoever calls it has fetched both. What the config leaves open stays open, and is guessed
high where memory is counted; what cannot be served is refused.
"""

import functools
import json
import math
import re
import reprlib
from pathlib import Path
from typing import Any, NamedTuple

from presets import catalogue, memory
from presets.facts import Preset, Runtime, Shape

_GIB = 2**30
_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
_GENERATES = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
_DEFAULT_CONTEXT = 2048
"""For configs that name no longest position, as KAITO takes them."""
_HIGHEST = 2**40
"""No honest config has a larger number, and arithmetic with floats ends somewhere."""
_LONGEST = 100
"""Characters of a name that is told again: nobody vouches for what a config says."""
_UNPACKED = 3.8
"""16-bit weights over mxfp4 ones, which the transformers runtime unpacks: 4.25 bits each."""
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
_NO_ATTENTION = ("hybrid_override_pattern", "mamba_d_state", "ssm_state_size", "state_size", "linear_num_value_heads")
_EXPERT_WIDTHS = ("moe_intermediate_size", "shared_expert_intermediate_size")
_OTHER_HEADS = ("linear_num_key_heads", "linear_num_value_heads", "mamba_num_heads")
_SAME_STORY = 0.05
"""How far weights may be from those that a dense shape has for it to be believed."""


class UnservableError(ValueError):
    """A model of the hub that cannot be served; the text names the model, what it says of itself, and the way out."""


class _Families(NamedTuple):
    served: frozenset[str]
    linears: dict[str, tuple[str, ...]]
    ungated: frozenset[str]


def is_hub_id(name: str) -> bool:
    """Whether this is written as a hub id, `organisation/model`, and no file here describes it."""
    if not _ID.fullmatch(name) or "--" in name or ".." in name:
        return False
    try:
        catalogue.preset(name)
    except catalogue.UnknownNameError:
        return True
    return False


def from_folder(hub_id: str, revision: str | None, folder: Path) -> Preset:
    """The same of a model whose files are in a folder; OSError or ValueError where its config.json cannot be read."""
    described = json.loads((folder / "config.json").read_bytes())
    return from_hub(hub_id, revision, described, sum(file.stat().st_size for file in folder.glob("*.safetensors")))


def from_hub(hub_id: str, revision: str | None, config: dict[str, Any], weights_bytes: int) -> Preset:
    """The preset of a model whose config.json is `config` and whose safetensors files have `weights_bytes` together.

    Whether the hub wants a token for it is not in there: `access` says public. Raises UnservableError.
    """
    if weights_bytes <= 0:
        raise UnservableError(f"{hub_id} has no weights in safetensors files; name a model that has, or convert it")
    text = _text(config)
    method = _quantisation(hub_id, config, text)
    architecture, runtimes = _runtimes(hub_id, config, method)
    weights_gib = weights_bytes / _GIB
    in_16_bits = weights_gib * _stored(config, text)
    found = shape(hub_id, config, in_16_bits)
    linears = families().linears.get(_model_type(config), ())
    untunable = _untunable(linears, method, found, in_16_bits)
    return Preset(
        name=hub_id,
        hub_id=hub_id,
        revision=revision,
        license=None,
        access="public",
        upstream="hub",
        architecture=architecture,
        context_limit=_context(hub_id, text),
        weights_gib=round(weights_gib, 2),
        transformers_gib=_loaded(weights_gib, method, config, text),
        cache_bytes_per_token=_cache(hub_id, text, found),
        quantisation=method,
        runtimes=runtimes,
        tunable=not untunable,
        lora_targets=linears,
        shape=found,
        limits=(*_unserved(architecture, method, runtimes), *untunable),
    )


def shape(hub_id: str, config: dict[str, Any], weights_gib: float = 0) -> Shape | None:
    """The numbers of a config.json, None where the most important are missing; raises UnservableError.

    `weights_gib`: in 16 bits, of which it follows whether the head is the embedding where the config does not say.
    """
    found = _shape(hub_id, _text(config), weights_gib)
    return found and found.model_copy(update={"pieces": _pieces(hub_id, config, _text(config))})


@functools.cache
def families() -> _Families:
    """architectures.yaml as Python values."""
    data = catalogue.load(Path(__file__).parent / "architectures.yaml")
    linears = {kind: tuple(family["names"]) for family in data["linears"] for kind in family["model_types"]}
    ungated = {kind for family in data["linears"] for kind in family["model_types"] if not family.get("gated", True)}
    return _Families(frozenset(data["served"]), linears, frozenset(ungated))


@functools.cache
def _known_to_vllm() -> frozenset[str]:
    return frozenset(model.architecture for model in catalogue.presets().values() if "vllm" in model.runtimes)


def _runtimes(hub_id: str, config: dict[str, Any], method: str | None) -> tuple[str, tuple[Runtime, ...]]:
    """The architecture, and what can serve it."""
    named = config.get("architectures")
    if not isinstance(named, list) or not named or not isinstance(named[0], str) or len(named[0]) > _LONGEST:
        raise UnservableError(f"{hub_id}: config.json names no architectures; it is no language model of transformers")
    architecture, model_type = named[0], _model_type(config)
    if not architecture.endswith(_GENERATES):
        raise UnservableError(
            f"{hub_id} is a {architecture}, which writes no text; name one whose architecture ends in ForCausalLM"
        )
    found: list[Runtime] = []
    if model_type in families().served and method in {None, "bitsandbytes", "mxfp4"}:
        found.append("transformers")
    if architecture in _known_to_vllm():
        found.append("vllm")
    if found:
        return architecture, tuple(found)
    if model_type in families().served:
        raise UnservableError(f"{hub_id}: no kernels here for {method} weights; name the model with 16-bit weights")
    why = "needs code of its own, which is not run here" if "auto_map" in config else "is not known here"
    raise UnservableError(f"{hub_id}: {architecture} (model_type {model_type}) {why}; name a model of a known family")


def _model_type(part: dict[str, Any]) -> str:
    return str(part.get("model_type"))[:_LONGEST]


def _text(config: dict[str, Any]) -> dict[str, Any]:
    """The language model's part, where the config describes several."""
    for name in ("text_config", "llm_config", "language_config"):
        if isinstance(config.get(name), dict):
            return dict(config[name])
    return config


def _quantisation(hub_id: str, *parts: dict[str, Any]) -> str | None:
    for part in parts:
        found = part.get("quantization_config")
        if isinstance(found, dict) and found.get("quant_method"):
            return str(found["quant_method"])[:_LONGEST]
        if found:
            raise UnservableError(f"{hub_id}: config.json's quantization_config names no quant_method")
    return None


def _stored(*parts: dict[str, Any]) -> float:
    """Bytes of 16-bit weights over stored ones: the server converts 32-bit weights."""
    names = (str(part[key]) for part in parts for key in ("dtype", "torch_dtype") if part.get(key))
    return 0.5 if next(names, "bfloat16").removeprefix("torch.") == "float32" else 1.0


def _loaded(weights_gib: float, method: str | None, *parts: dict[str, Any]) -> float | None:
    factor = _UNPACKED if method == "mxfp4" else _stored(*parts)
    return None if factor == 1 else round(weights_gib * factor, 2)


def _number(hub_id: str, text: dict[str, Any], *names: str) -> int | None:
    """The first of these keys that is there."""
    for name in names:
        value = text.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= _HIGHEST:
            seen = reprlib.repr(value)
            raise UnservableError(f"{hub_id}: config.json's {name} is {seen}, not a whole number from 1 to {_HIGHEST}")
        return value
    return None


def _context(hub_id: str, text: dict[str, Any]) -> int:
    names = ("max_position_embeddings", "n_positions", "n_ctx", "seq_length", "max_seq_len", "max_sequence_length")
    return _number(hub_id, text, *names) or _DEFAULT_CONTEXT


def _shape(hub_id: str, text: dict[str, Any], weights_gib: float) -> Shape | None:
    """The architecture's numbers, or None where the most important are missing."""
    layers = _number(hub_id, text, "num_hidden_layers", "n_layer", "num_layers", "n_layers")
    hidden = _number(hub_id, text, "hidden_size", "n_embd", "d_model")
    heads = _number(hub_id, text, "num_attention_heads", "n_head", "n_heads")
    if layers is None or hidden is None or heads is None:
        return None
    if heads > hidden:
        raise UnservableError(f"{hub_id}: config.json has {heads} attention heads in a hidden size of {hidden}")
    full_layers, window = _windows(hub_id, text, layers)
    found = Shape(
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=_kv_heads(hub_id, text, heads),
        head_dim=_number(hub_id, text, "head_dim"),
        intermediate=_number(hub_id, text, "intermediate_size", "ffn_hidden_size", "n_inner") or 4 * hidden,
        vocabulary=_number(hub_id, text, "vocab_size"),
        kind=_kind(text),
        gated=_model_type(text) not in families().ungated,
        full_layers=full_layers,
        window=window,
    )
    tied = text.get("tie_word_embeddings")
    return found.model_copy(update={"tied_embeddings": tied if isinstance(tied, bool) else _tied(found, weights_gib)})


def _pieces(hub_id: str, config: dict[str, Any], text: dict[str, Any]) -> int | None:
    """Parts that a GPU has whole, beside attention heads and the width of an MLP that is not stored in blocks."""
    block = _block(config) or _block(text)
    widths = [_number(hub_id, text, name) for name in (*_EXPERT_WIDTHS, *(["intermediate_size"] if block else []))]
    found = [1 if width % (block or 1) else width // (block or 1) for width in widths if width]
    found += [heads for name in _OTHER_HEADS if (heads := _number(hub_id, text, name))]
    return math.gcd(*found) if found else None


def _block(config: dict[str, Any]) -> int:
    """How many neighbouring weights are stored together; 0 where that is not said."""
    stored = config.get("quantization_config")
    block = stored.get("weight_block_size") or stored.get("group_size") if isinstance(stored, dict) else None
    block = block[0] if isinstance(block, list) and block else block
    return block if isinstance(block, int) and 0 < block <= _HIGHEST else 0


def _kv_heads(hub_id: str, text: dict[str, Any], heads: int) -> int:
    if text.get("multi_query") and not text.get("new_decoder_architecture"):
        return 1
    return _number(hub_id, text, "num_key_value_heads", "num_kv_heads", "n_head_kv") or heads


def _kind(text: dict[str, Any]) -> Any:
    if text.get("kv_lora_rank"):
        return "latent"
    if any(text.get(name) for name in _NO_ATTENTION) or set(_layer_types(text)) & {"linear_attention", "mamba", "conv"}:
        return "hybrid"
    experts = [text.get(name) for name in _EXPERTS]
    return "experts" if any(isinstance(count, int) and count > 1 for count in experts) else "dense"


def _layer_types(text: dict[str, Any]) -> list[str]:
    found = text.get("layer_types")
    return [str(name) for name in found] if isinstance(found, list) else []


def _windows(hub_id: str, text: dict[str, Any], layers: int) -> tuple[int | None, int | None]:
    """Layers that see everything and what the others see; both None where the config does not list its layers."""
    types = _layer_types(text)
    full = sum("full" in name or "chunked" in name for name in types)
    if len(types) != layers or full == layers:
        return None, None
    return full, _number(hub_id, text, "sliding_window") or 0


def _tied(shape: Shape, weights_gib: float) -> bool | None:
    """Whichever is nearer to the weights, where the config leaves it to transformers."""
    if shape.vocabulary is None or shape.kind != "dense":
        return None
    errors = {
        tied: abs(memory.parameters(shape.model_copy(update={"tied_embeddings": tied})) * 2 / _GIB - weights_gib)
        for tied in (True, False)
    }
    return min(errors, key=lambda tied: errors[tied])


def _unserved(architecture: str, method: str | None, runtimes: tuple[Runtime, ...]) -> list[str]:
    """Why our engine cannot serve it, if it cannot."""
    if "transformers" in runtimes:
        return []
    lacks = f"has no kernels for its {method} weights" if method else f"does not know {architecture}"
    return [f"the transformers runtime {lacks}"]


def _untunable(linears: tuple[str, ...], method: str | None, shape: Shape | None, weights_gib: float) -> list[str]:
    """Why it cannot be tuned, if it cannot: what else the files hold than the shape says would not be sized."""
    if method:
        why = f"its weights are stored quantised ({method})"
    elif not linears:
        why = "its linear layers are not known here"
    elif shape is None or not shape.complete:
        why = "config.json does not give its shape"
    elif abs(memory.parameters(shape) * 2 / _GIB / weights_gib - 1) >= _SAME_STORY:
        why = f"its weights ({weights_gib:.1f} GiB in 16 bits) are not those of the shape in config.json"
    else:
        return []
    return [f"cannot be tuned: {why}"]


def _cache(hub_id: str, text: dict[str, Any], shape: Shape | None) -> int | None:
    """Bytes of one token's keys and values in all layers, as the transformers runtime keeps them."""
    if shape is None:
        return None
    rank = _number(hub_id, text, "kv_lora_rank")
    if rank:
        return 2 * shape.layers * (rank + (_number(hub_id, text, "qk_rope_head_dim") or 0))
    kept = shape.heads if text.get("new_decoder_architecture") else shape.kv_heads  # Falcon repeats them first
    return 4 * shape.layers * kept * shape.head_size
