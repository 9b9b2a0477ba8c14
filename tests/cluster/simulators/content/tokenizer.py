"""A tokenizer of Phi-3's shape: sentencepiece-like BPE with byte fallback, its special tokens and chat template.

Trained on the spot on a few thousand short sentences. What is kept of the original: the order of the special tokens
after the vocabulary, which of them swallow the white space behind them, and the template's words. So a newline after
`<|user|>` disappears on the way to token ids, as it does with the real one.
"""

import json
from collections.abc import Iterable
from pathlib import Path

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

VOCABULARY = 1000
"""Learned tokens, with <unk>, <s>, </s> and 256 bytes among them; the special tokens follow."""

CONTROL = ("<unk>", "<s>", "</s>")
BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))
SPECIAL = (
    "<|endoftext|>",
    "<|assistant|>",
    "<|placeholder1|>",
    "<|placeholder2|>",
    "<|placeholder3|>",
    "<|placeholder4|>",
    "<|system|>",
    "<|end|>",
    "<|placeholder5|>",
    "<|placeholder6|>",
    "<|user|>",
)
ID = {token: VOCABULARY + place for place, token in enumerate(SPECIAL)}
PADDED_VOCABULARY = 1024
"""Rows of the embedding: a multiple of 64, as 32011 tokens have 32064 rows in the original."""

SPACE = "\u2581"

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ '<|system|>\n' + message['content'] + '<|end|>\n' }}"
    "{% elif message['role'] == 'user' %}{{ '<|user|>\n' + message['content'] + '<|end|>\n' }}"
    "{% elif message['role'] == 'assistant' %}{{ '<|assistant|>\n' + message['content'] + '<|end|>\n' }}"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)


def write(folder: Path, texts: Iterable[str], max_length: int) -> None:
    """Train on `texts` and write the files that a model repository has for its tokenizer."""
    tokenizer = _train(texts)
    tokenizer.save(str(folder / "tokenizer.json"))
    _write_json(folder / "tokenizer_config.json", _config(tokenizer, max_length))
    _write_json(folder / "added_tokens.json", ID)
    _write_json(
        folder / "special_tokens_map.json",
        {"bos_token": "<s>", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>", "unk_token": "<unk>"},
    )


def _train(texts: Iterable[str]) -> tokenizers.Tokenizer:
    learner = tokenizers.Tokenizer(models.BPE())
    # Only while learning are words cut, so that no token crosses two of them; afterwards the merges alone decide.
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(SPACE, "always"), pre_tokenizers.Punctuation("isolated")]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=[*CONTROL, *BYTES], show_progress=False, min_frequency=1
    )
    learner.train_from_iterator(texts, trainer)
    learned = json.loads(learner.to_str())["model"]
    if len(learned["vocab"]) != VOCABULARY:
        raise ValueError(f"the texts gave {len(learned['vocab'])} tokens, not {VOCABULARY}: train on more of them")
    return _assemble(learned["vocab"], [tuple(pair) for pair in learned["merges"]])


def _assemble(vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(
        models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="$A", pair="$A $B:1", special_tokens=[])
    tokenizer.add_special_tokens([_added("<unk>"), _added("<s>")])
    tokenizer.add_tokens([tokenizers.AddedToken("</s>", rstrip=True, normalized=False)])
    tokenizer.add_special_tokens([_added(token) for token in SPECIAL])
    return tokenizer


def _added(token: str) -> tokenizers.AddedToken:
    swallows_space = token in SPECIAL and token != "<|endoftext|>"
    return tokenizers.AddedToken(token, rstrip=swallows_space, normalized=False, special=True)


def _config(tokenizer: tokenizers.Tokenizer, max_length: int) -> dict[str, object]:
    return {
        "add_bos_token": False,
        "add_eos_token": False,
        "added_tokens_decoder": {
            str(number): {
                "content": token.content,
                "lstrip": token.lstrip,
                "normalized": token.normalized,
                "rstrip": token.rstrip,
                "single_word": token.single_word,
                "special": token.special,
            }
            for number, token in sorted(tokenizer.get_added_tokens_decoder().items())
        },
        "bos_token": "<s>",
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|endoftext|>",
        "legacy": False,
        "model_max_length": max_length,
        "pad_token": "<|endoftext|>",
        "padding_side": "left",
        "sp_model_kwargs": {},
        "tokenizer_class": "LlamaTokenizer",
        "unk_token": "<unk>",
        "use_default_system_prompt": False,
    }


def _write_json(path: Path, document: object) -> None:
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
