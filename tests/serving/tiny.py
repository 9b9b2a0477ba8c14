"""A real checkpoint in a second: a random Phi-3 a tokenizer, a chat template, adapters that change its words."""

import json

import peft
import tokenizers
import torch
import transformers

TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
SPECIAL = ["<|endoftext|>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>"]
TARGETS = ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]


def tokenizer():
    backend = tokenizers.Tokenizer(tokenizers.models.BPE())
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=400, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(["the quick brown fox jumps over the lazy dog and runs away " * 20], trainer)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=SPECIAL[1:],
        chat_template=TEMPLATE,
    )


def checkpoint(folder, **sizes):
    """Phi-3 with its sliding window, which the prompts of the tests cross."""
    own = tokenizer()
    own.save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.Phi3Config(
        **{"hidden_size": 64, "intermediate_size": 128} | sizes,
        vocab_size=len(own),
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        original_max_position_embeddings=512,
        sliding_window=24,
        pad_token_id=0,
        bos_token_id=0,
        eos_token_id=[0, 4],
        initializer_range=0.2,
        tie_word_embeddings=False,
    )
    transformers.Phi3ForCausalLM(config).save_pretrained(folder)
    return folder


def model(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def adapter(folder, base, seed, *, template=None, **options):
    """A random peft adapter, as its `save_pretrained` writes it."""
    settings = {"r": 4, "lora_alpha": 8, "target_modules": TARGETS, "task_type": "CAUSAL_LM"} | options
    torch.manual_seed(seed)
    tuned = peft.get_peft_model(model(base), peft.LoraConfig(**settings))
    with torch.no_grad():
        for name, weight in tuned.named_parameters():
            if "lora_" in name:
                weight.normal_(std=0.15)
    tuned.save_pretrained(folder, save_embedding_layers=False)
    if template:
        (folder / "chat_template.jinja").write_text(template)
    return folder


def edit(folder, **fields):
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))
    return folder


def greedy(reference, prompt, count):
    """What transformers itself answers."""
    ids = torch.tensor([prompt])
    with torch.inference_mode():
        output = reference.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=count, pad_token_id=0
        )
    return output[0, len(prompt) :].tolist()


def merged(base, adapters, mix):
    """The base with every adapter's product added by hand, in one weight."""
    whole = model(base)
    weights = dict(whole.named_parameters())
    for name, strength in mix.items():
        tuned = peft.PeftModel.from_pretrained(model(base), adapters[name])
        for path, layer in tuned.get_base_model().named_modules():
            if isinstance(layer, peft.tuners.lora.LoraLayer):
                weights[f"{path}.weight"].data += strength * layer.get_delta_weight("default").detach()
    return whole
