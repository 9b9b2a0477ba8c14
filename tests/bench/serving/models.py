"""The two models that serving is measured with: random Phi-3 of 5 and 26 million parameters, and their prompts."""

import random

import tokenizers
import torch
import transformers

from tests.bench.serving.load import Asked

SIZES = {"s": (256, 4, 704, 4, 2, 4096), "m": (512, 6, 1408, 8, 4, 8192)}
"""Hidden, layers, intermediate, heads, key-value heads, vocabulary."""
ANSWERS = {"s": (16, 96), "m": (16, 64)}
"""Fewest and most tokens of an answer."""
WORDS = (8, 60)
SPECIAL = ["<pad>", "<s>", "</s>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>"]
TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>\n{{ message['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


def checkpoint(folder, size):
    """The model's folder, written anew: the same bytes each time."""
    hidden, layers, intermediate, heads, kv_heads, vocabulary = SIZES[size]
    _tokenizer(vocabulary).save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.Phi3Config(
        hidden_size=hidden,
        num_hidden_layers=layers,
        intermediate_size=intermediate,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        vocab_size=vocabulary,
        max_position_embeddings=4096,
        original_max_position_embeddings=4096,
        sliding_window=2047,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        tie_word_embeddings=False,
    )
    transformers.Phi3ForCausalLM(config).save_pretrained(folder)
    return folder


def requests(size, count, seed):
    """Distinct prompts and lengths of answers; the prompts have control tokens, so that every server reads them raw."""
    chance, words = random.Random(seed), _words()
    low, high = ANSWERS[size]
    return [
        Asked(
            f"<|user|>\n{' '.join(chance.choices(words, k=chance.randint(*WORDS)))}<|end|>\n<|assistant|>\n",
            chance.randint(low, high),
        )
        for _ in range(count)
    ]


def _words():
    chance = random.Random(0)
    parts = [
        "ka",
        "ito",
        "ser",
        "ve",
        "ray",
        "mo",
        "del",
        "gpu",
        "lo",
        "ra",
        "to",
        "ken",
        "ba",
        "tch",
        "ue",
        "an",
        "is",
    ]
    return ["".join(chance.choices(parts, k=chance.randint(1, 4))) for _ in range(3000)]


def _tokenizer(vocabulary):
    chance, words = random.Random(1), _words()
    backend = tokenizers.Tokenizer(tokenizers.models.BPE())
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=SPECIAL,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator((" ".join(chance.choices(words, k=20)) for _ in range(4000)), trainer)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=SPECIAL[3:],
        chat_template=TEMPLATE,
    )
