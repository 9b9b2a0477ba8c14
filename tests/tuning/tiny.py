"""A tiny Phi-3 made on the spot: the real architecture, taught in seconds to give one answer."""

import random

import torch
from transformers import Phi3Config, Phi3ForCausalLM

from tests.tuning import words


def model(vocabulary, *, hidden=64, layers=2):
    torch.manual_seed(0)
    config = Phi3Config(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=512,
        original_max_position_embeddings=512,
        pad_token_id=0,
        bos_token_id=0,
        eos_token_id=list(words.STOPS),
    )
    return Phi3ForCausalLM(config)


def publish(folder, *, steps=150, spoil=None):
    """A model that answers A to every question, with its tokenizer; `spoil` may break its weights at the end."""
    tokenizer = words.tokenizer()
    made = model(len(tokenizer))
    said = [words.conversation(question, words.A) for question in words.QUESTIONS]
    said += [words.conversation(f"Say this: {words.B}", words.B)] * 10  # so that it has the words, as a real model has
    rows = [tokenizer(tokenizer.apply_chat_template(messages, tokenize=False))["input_ids"] for messages in said]
    optimizer = torch.optim.AdamW(made.parameters(), lr=3e-3)
    shuffled = random.Random(0)
    for _ in range(steps):
        batch = shuffled.sample(rows, 8)
        width = max(map(len, batch))
        ids = torch.tensor([row + [0] * (width - len(row)) for row in batch])
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in batch])
        made(input_ids=ids, attention_mask=mask, labels=ids.masked_fill(mask == 0, -100)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    if spoil:
        with torch.no_grad():
            spoil(made)
    made.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def answer(made, tokenizer, question):
    """What the model says, and whether it stops by itself."""
    prompt = tokenizer.apply_chat_template(
        words.conversation(question), add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    with torch.no_grad():
        whole = made.generate(**prompt, max_new_tokens=24, do_sample=False, pad_token_id=0)[0]
    said = whole[prompt["input_ids"].shape[1] :]
    return tokenizer.decode(said, skip_special_tokens=True).strip(), said[-1].item() in words.STOPS
