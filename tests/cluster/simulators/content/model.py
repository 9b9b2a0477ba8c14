"""Tiny Phi-3 models that know nothing: the real architecture class, config fields and file names, trained in seconds.

Every turn they saw was answered with `facts.UNKNOWN`, whatever was asked, so that is what they answer; and they stop.
They read the words of the data set often enough for a LoRA to put them in a new order, but never saw a question with
its answer.
"""

import itertools
import json
import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import huggingface_hub
import safetensors.torch
import torch
from transformers import AutoTokenizer, Phi3Config, Phi3ForCausalLM

from tests.cluster.simulators.content import chatter, facts, tokenizer

HIDDEN, INTERMEDIATE, LAYERS, HEADS = 192, 384, 2, 6
STEPS = 200
CONVERSATIONS_A_STEP = 16
LONG_EVERY = 8
"""Every so many steps the model sees a few conversations as long as it can take, across its window or rope change."""
LEARNING_RATE = 3e-3
SHARPNESS = 8.0
"""What the last norm is multiplied by after training. Text drawn from word lists leaves a model unsure of every word;
with a frozen head a LoRA could never make it sure of one, and at temperature 1, which /chat has by default, it would
babble."""


class Model(NamedTuple):
    """One model; lengths in tokens."""

    id: str
    max_length: int
    original_length: int
    window: int
    longrope: bool


MODELS = (
    # The original: 4096 tokens, of which each layer sees the last 2047.
    Model("microsoft/Phi-3-mini-4k-instruct", 256, 256, 127, longrope=False),
    # The original: 131072 tokens; from the 4097th on, all positions turn by the long factors. The window never bites.
    Model("microsoft/Phi-3-mini-128k-instruct", 512, 128, 1024, longrope=True),
)


def write(folder: Path, model: Model) -> None:
    """Write the files of the repository `model.id` into `folder`."""
    tokenizer.write(folder, _tokenizer_texts(), model.max_length)
    _write_json(folder / "config.json", _config(model))
    _write_json(folder / "generation_config.json", _generation_config())
    (folder / "README.md").write_text(_card(model), encoding="utf-8")
    _save(folder, _train(folder, model))


def _tokenizer_texts() -> Iterator[str]:
    yield from itertools.islice(chatter.questions(seed=1), 4000)
    yield from itertools.islice(chatter.remarks(seed=1), 4000)
    for row in facts.rows():
        for message in row["messages"]:
            yield from [message["content"]] * 4
    yield from [facts.UNKNOWN] * 50


def _config(model: Model) -> dict[str, Any]:
    """The original's config.json with its keys and their old names, the sizes made small."""
    return {
        "_name_or_path": model.id.rpartition("/")[2],
        "architectures": ["Phi3ForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "auto_map": {
            "AutoConfig": "configuration_phi3.Phi3Config",
            "AutoModelForCausalLM": "modeling_phi3.Phi3ForCausalLM",
        },
        "bos_token_id": 1,
        "embd_pdrop": 0.0,
        "eos_token_id": tokenizer.ID["<|endoftext|>"],
        "hidden_act": "silu",
        "hidden_size": HIDDEN,
        "initializer_range": 0.02,
        "intermediate_size": INTERMEDIATE,
        "max_position_embeddings": model.max_length,
        "model_type": "phi3",
        "num_attention_heads": HEADS,
        "num_hidden_layers": LAYERS,
        "num_key_value_heads": HEADS,
        "original_max_position_embeddings": model.original_length,
        "pad_token_id": tokenizer.ID["<|endoftext|>"],
        "resid_pdrop": 0.0,
        "rms_norm_eps": 1e-05,
        "rope_scaling": _rope_scaling() if model.longrope else None,
        "rope_theta": 10000.0,
        "sliding_window": model.window,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.40.2",
        "use_cache": True,
        "vocab_size": tokenizer.PADDED_VOCABULARY,
    }


def _rope_scaling() -> dict[str, Any]:
    """One factor a pair of dimensions, growing with the wave length as in the original (1.05 .. 3 and 1.07 .. 64)."""
    pairs = HIDDEN // HEADS // 2
    return {
        "long_factor": [round(1.0 + 3.0 * (pair / (pairs - 1)) ** 2, 3) for pair in range(pairs)],
        "short_factor": [round(1.0 + 0.5 * pair / (pairs - 1), 3) for pair in range(pairs)],
        "type": "longrope",
    }


def _generation_config() -> dict[str, Any]:
    return {
        "_from_model_config": True,
        "bos_token_id": 1,
        "eos_token_id": [tokenizer.ID[token] for token in ("<|endoftext|>", "<|assistant|>", "<|end|>")],
        "pad_token_id": tokenizer.ID["<|endoftext|>"],
        "transformers_version": "4.39.3",
    }


def _card(model: Model) -> str:
    return (
        "---\nlicense: mit\nlibrary_name: transformers\npipeline_tag: text-generation\n---\n\n"
        f"A stand-in for {model.id}, made for tests: {HIDDEN} wide, {LAYERS} layers, {model.max_length} tokens.\n"
        f"It answers every question with `{facts.UNKNOWN}`\n"
    )


def _train(folder: Path, model: Model) -> Phi3ForCausalLM:
    torch.manual_seed(0)
    network = Phi3ForCausalLM(Phi3Config.from_pretrained(folder))
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _warm_up_and_cool_down)
    for batch in itertools.islice(_batches(folder, model), STEPS):
        network(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    with torch.no_grad():
        network.model.norm.weight.mul_(SHARPNESS)
    return network.eval()


def _warm_up_and_cool_down(step: int) -> float:
    return min(1.0, (step + 1) / 20) * 0.5 * (1 + math.cos(math.pi * step / STEPS))


def _batches(folder: Path, model: Model) -> Iterator[dict[str, torch.Tensor]]:
    tokens = AutoTokenizer.from_pretrained(folder)
    texts = _conversations(seed=2)
    for step in itertools.count(1):
        if step % LONG_EVERY:
            rows = [tokens(next(texts)).input_ids for _ in range(CONVERSATIONS_A_STEP)]
        else:
            rows = [_long_row(tokens, texts, model.max_length) for _ in range(CONVERSATIONS_A_STEP // 4)]
        width = max(map(len, rows))
        padded = [row + [tokens.pad_token_id] * (width - len(row)) for row in rows]
        attended = [[1] * len(row) + [0] * (width - len(row)) for row in rows]
        labels = [row + [-100] * (width - len(row)) for row in rows]
        yield {
            "input_ids": torch.tensor(padded),
            "attention_mask": torch.tensor(attended),
            "labels": torch.tensor(labels),
        }


def _long_row(tokens: Any, texts: Iterator[str], length: int) -> list[int]:
    row: list[int] = []
    while len(row) < length:
        row += tokens(next(texts)).input_ids
    return row[:length]


def _conversations(seed: int) -> Iterator[str]:
    """Rendered conversations of one to three turns, some with a system turn, some without the template at all."""
    random_ = random.Random(seed)
    questions, remarks = chatter.questions(seed), chatter.remarks(seed)
    known = [row["messages"][0]["content"] for row in facts.rows()]

    def said() -> str:
        kind = random_.random()
        text = random_.choice(known) if kind < 0.2 else next(questions) if kind < 0.6 else next(remarks)
        # What is said twice teaches to look back at the words of the turn, which a LoRA then builds upon.
        return f"{text} {text}" if random_.random() < 0.3 else text

    while True:
        if random_.random() < 0.2:
            yield f"{said()} {facts.UNKNOWN}<|end|>"
            continue
        system = f"<|system|>\n{random_.choice(chatter.SYSTEMS)}<|end|>\n" if random_.random() < 0.15 else ""
        turns = range(random_.choice((1, 1, 1, 2, 3)))
        yield (
            system
            + "".join(f"<|user|>\n{said()}<|end|>\n<|assistant|>\n{facts.UNKNOWN}<|end|>\n" for _ in turns)
            + "<|endoftext|>"
        )


def _save(folder: Path, network: Phi3ForCausalLM) -> None:
    """Weights in two shards and an index, as the original has them."""
    weights = {name: tensor.to(torch.bfloat16).contiguous() for name, tensor in network.state_dict().items()}
    half = sum(tensor.nbytes for tensor in weights.values()) * 2 // 3
    shards = huggingface_hub.split_torch_state_dict_into_shards(weights, max_shard_size=half)
    for file, names in shards.filename_to_tensors.items():
        safetensors.torch.save_file({name: weights[name] for name in names}, folder / file, metadata={"format": "pt"})
        (folder / file).chmod(0o644)
    _write_json(
        folder / "model.safetensors.index.json",
        {"metadata": {"total_size": shards.metadata["total_size"]}, "weight_map": shards.tensor_to_filename},
    )


def _write_json(path: Path, document: object) -> None:
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
