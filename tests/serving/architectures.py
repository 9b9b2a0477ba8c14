"""Tiny random models of the architectures that the slot engine batches, their limits scaled down with the rest."""

import torch
import transformers

COMMON = {
    "vocab_size": 211,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "initializer_range": 0.2,
    "tie_word_embeddings": False,
}
WINDOW = 24
LIMIT = 40
"""Where longrope's factors change."""
HALF = 8  # longrope has a factor for every second number of a head of 16
LAYERS = ["sliding_attention", "full_attention", "sliding_attention"]


def _longrope(turned=1.0, **more):
    """Of each head, the part `turned` is."""
    factors = range(int(HALF * turned))
    rope = {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "partial_rotary_factor": turned,
        "short_factor": [1.0 + 0.05 * at for at in factors],
        "long_factor": [2.0 + 0.7 * at for at in factors],
    }
    own = {"original_max_position_embeddings": LIMIT, "sliding_window": 256, "rope_parameters": rope}
    return transformers.Phi3Config(**COMMON | own | more)


def _gemma3(**more):
    own = {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": WINDOW, "layer_types": LAYERS}
    return transformers.Gemma3TextConfig(**COMMON | own | more)


def _llama3():
    rope = {
        "rope_type": "llama3",
        "rope_theta": 10000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }
    return transformers.LlamaConfig(**COMMON, rope_parameters=rope)


CONFIGS = {
    "phi3": lambda: transformers.Phi3Config(**COMMON, original_max_position_embeddings=512, sliding_window=WINDOW),
    "phi3 longrope": _longrope,
    "phi4 mini": lambda: _longrope(0.75, tie_word_embeddings=True),
    "llama": lambda: transformers.LlamaConfig(**COMMON),
    "llama3": _llama3,
    "mistral": lambda: transformers.MistralConfig(**COMMON, sliding_window=WINDOW),
    "mistral without window": lambda: transformers.MistralConfig(**COMMON, sliding_window=None),
    "qwen2": lambda: transformers.Qwen2Config(**COMMON),
    "qwen2 with window": lambda: transformers.Qwen2Config(
        **COMMON, use_sliding_window=True, sliding_window=WINDOW, max_window_layers=1
    ),
    "gemma2": lambda: transformers.Gemma2Config(
        **COMMON, head_dim=16, query_pre_attn_scalar=16, sliding_window=WINDOW, layer_types=LAYERS
    ),
    "gemma3": _gemma3,
    "gemma3 from 4b on": lambda: _gemma3(
        rope_parameters={
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
            "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
        }
    ),
}


def model(name):
    """The model, always the same one."""
    torch.manual_seed(7)
    return transformers.AutoModelForCausalLM.from_config(CONFIGS[name](), dtype=torch.float32).eval()
