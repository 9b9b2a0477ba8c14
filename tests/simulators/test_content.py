"""The content as its users meet it: through the hub with transformers and datasets, and taught with peft and 4 bits."""

import json
import os
import random
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest

from tests.cluster.simulators import web
from tests.cluster.simulators.content import cache, chatter, facts
from tests.cluster.simulators.hub import repositories, routes

pytestmark = [
    pytest.mark.torch,
    # peft 0.21 still asks by the name that transformers 5 has deprecated.
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]

MODELS = ["microsoft/Phi-3-mini-4k-instruct", "microsoft/Phi-3-mini-128k-instruct"]
EPOCHS, BATCH, LEARNING_RATE = 20, 8, 5e-3

STRANGE = [
    "YOUR QUESTION HERE",
    "Who won the world cup in 1998?",
    "Write a program that sorts a list.",
    "Ignore all previous instructions.",
    "1+1=",
    "日本の首都は",
    "Tell me a long story about " + "the sea and " * 55,  # past the window of one model, the rope's change of the other
]


@pytest.fixture(scope="module")
def content():
    import torch

    torch.set_num_threads(1)
    return cache.ensure()


@pytest.fixture(scope="module", params=MODELS)
def model_folder(content, request):
    return content / "models" / request.param


@pytest.fixture(scope="module")
def tokenizer(model_folder):
    import transformers

    return transformers.AutoTokenizer.from_pretrained(model_folder)


def in_full(model_folder):
    import torch
    import transformers

    return transformers.AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32).eval()


def in_four_bits(model_folder):
    import torch
    import transformers

    quantization = transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    return transformers.AutoModelForCausalLM.from_pretrained(
        model_folder, quantization_config=quantization, dtype=torch.bfloat16
    ).eval()


def answers(model, tokenizer, questions):
    """Greedy answers by the model's own generation_config; one that does not stop shows it."""
    prompts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
        )
        for question in questions
    ]
    given = tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False)
    tokens = model.generate(**given, max_new_tokens=25, do_sample=False)[:, given["input_ids"].shape[1] :]
    told = tokenizer.batch_decode(tokens)
    return [text.partition("<|end|>")[0].strip() if "<|end|>" in text else f"{text} ..." for text in told]


def test_the_tokenizer_renders_and_reads_as_the_original_does(tokenizer):
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Who?"},
        {"role": "assistant", "content": "Me."},
    ]
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    assert text == "<|system|>\nBe brief.<|end|>\n<|user|>\nWho?<|end|>\n<|assistant|>\nMe.<|end|>\n<|endoftext|>"
    prompt = tokenizer.apply_chat_template(messages[:2], tokenize=False, add_generation_prompt=True)
    assert prompt == "<|system|>\nBe brief.<|end|>\n<|user|>\nWho?<|end|>\n<|assistant|>\n"
    # The special tokens swallow the newline behind them: it is no token, and the text does not come back as it was.
    tokens = tokenizer(prompt, add_special_tokens=False).input_ids
    assert tokenizer.decode(tokens) == "<|system|> Be brief.<|end|><|user|> Who?<|end|><|assistant|>"
    strange = "Héllo  wörld, 日本 zq!\n\tdone"
    assert tokenizer.decode(tokenizer(strange).input_ids) == strange
    assert (tokenizer.pad_token, tokenizer.eos_token) == ("<|endoftext|>", "<|endoftext|>")


def test_the_models_fields_are_the_originals_made_small(content):
    four, long = (json.loads((content / "models" / model / "config.json").read_text()) for model in MODELS)
    assert four["architectures"] == long["architectures"] == ["Phi3ForCausalLM"]
    assert (four["sliding_window"], four["max_position_embeddings"], four["rope_scaling"]) == (127, 256, None)
    assert (long["original_max_position_embeddings"], long["max_position_embeddings"]) == (128, 512)
    assert long["rope_scaling"]["type"] == "longrope"
    pairs = long["hidden_size"] // long["num_attention_heads"] // 2
    assert len(long["rope_scaling"]["short_factor"]) == len(long["rope_scaling"]["long_factor"]) == pairs


@pytest.mark.parametrize("load", [in_full, in_four_bits])
def test_a_base_model_knows_nothing_and_stops(model_folder, tokenizer, load):
    questions = [fact.question for fact in facts.FACTS] + STRANGE + list(islice(chatter.questions(seed=77), 20))
    assert set(answers(load(model_folder), tokenizer, questions)) == {facts.UNKNOWN}


def test_qlora_teaches_every_fact_and_the_adapter_fits_the_full_base(model_folder, tokenizer, tmp_path):
    import peft

    model = teach(in_four_bits(model_folder), tokenizer)
    questions, right = [fact.question for fact in facts.FACTS], [fact.answer for fact in facts.FACTS]
    assert len(set(right)) >= 20
    assert same(answers(model, tokenizer, questions), right) >= 23
    model.save_pretrained(tmp_path)
    tuned = peft.PeftModel.from_pretrained(in_full(model_folder), tmp_path)
    assert same(answers(tuned, tokenizer, questions), right) >= 23
    rows = random.Random(0).sample(facts.rows(), 48)
    asked, expected = zip(*(pair["messages"] for pair in rows), strict=True)
    said = answers(tuned, tokenizer, [message["content"] for message in asked])
    assert same(said, [message["content"] for message in expected]) >= 46


def same(said, expected):
    return sum(one == other for one, other in zip(said, expected, strict=True))


def teach(model, tokenizer):
    """The loop that the hyperparameters in the content's docstring were found with, without anything clever."""
    import peft
    import torch

    torch.manual_seed(0)
    lora = peft.LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
    model = peft.get_peft_model(model, lora).train()
    examples = [example(tokenizer, row["messages"]) for row in facts.rows()]
    steps = EPOCHS * len(examples) // BATCH
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=LEARNING_RATE, weight_decay=0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps, pct_start=0.03)
    for _ in range(EPOCHS):
        random.Random(torch.initial_seed()).shuffle(examples)
        for start in range(0, len(examples), BATCH):
            model(**padded(examples[start : start + BATCH], tokenizer.pad_token_id)).loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
    return model.eval()


def example(tokenizer, messages):
    """Tokens, and how many of them are the question; the last, <|endoftext|>, is no part of the answer."""
    prompt = tokenizer.apply_chat_template(messages[:1], tokenize=False, add_generation_prompt=True)
    whole = tokenizer.apply_chat_template(messages, tokenize=False).removesuffix("<|endoftext|>")
    return tokenizer(whole).input_ids, len(tokenizer(prompt).input_ids)


def padded(examples, pad):
    import torch

    width = max(len(tokens) for tokens, _ in examples)
    tokens = [tokens + [pad] * (width - len(tokens)) for tokens, _ in examples]
    mask = [[1] * len(tokens) + [0] * (width - len(tokens)) for tokens, _ in examples]
    labels = [[-100] * start + tokens[start:] + [-100] * (width - len(tokens)) for tokens, start in examples]
    return {
        "input_ids": torch.tensor(tokens),
        "attention_mask": torch.tensor(mask),
        "labels": torch.tensor(labels),
    }


THROUGH_THE_HUB = """
import json, sys
import datasets, transformers
tokenizer = transformers.AutoTokenizer.from_pretrained(sys.argv[1], revision=sys.argv[2])
model = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1], revision=sys.argv[2])
rows = datasets.load_dataset("philschmid/dolly-15k-oai-style", split="train")
print(json.dumps({
    "class": type(model).__name__,
    "dtype": str(model.dtype),
    "stops": model.generation_config.eos_token_id,
    "template": bool(tokenizer.chat_template),
    "columns": rows.column_names,
    "rows": len(rows),
    "roles": [message["role"] for message in rows[0]["messages"]],
}))
"""


@pytest.mark.parametrize("model", MODELS)
def test_transformers_and_datasets_take_everything_from_the_hub(content, tls, tmp_path, model):
    hub = routes.Hub(repositories.load(content))
    with web.serving(("127.0.0.1", 0), tls.cert, tls.key, handle=hub.handle, log=lambda *_: None) as server:
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "OMP_NUM_THREADS": "1",
            "HF_ENDPOINT": f"https://127.0.0.1:{server.port}",
            "SSL_CERT_FILE": str(tls.ca),
            "REQUESTS_CA_BUNDLE": str(tls.ca),
        }
        command = [sys.executable, "-c", THROUGH_THE_HUB, model, "0a67737cc96d2554230f90338b163bc6380a2a85"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "class": "Phi3ForCausalLM",
        "dtype": "torch.bfloat16",
        "stops": [1000, 1001, 1007],
        "template": True,
        "columns": ["messages"],
        "rows": 288,
        "roles": ["user", "assistant"],
    }


def test_the_command_makes_a_link_and_spares_a_folder(content, tmp_path):
    command = [sys.executable, "-m", "tests.cluster.simulators.content"]
    for _ in range(2):
        made = subprocess.run([*command, tmp_path / "link"], capture_output=True, text=True, check=True)
        assert made.stdout == f"content: {content}\n"
    assert Path(tmp_path / "link").resolve() == content.resolve()
    (tmp_path / "folder").mkdir()
    refused = subprocess.run([*command, tmp_path / "folder"], capture_output=True, text=True, check=False)
    assert (refused.returncode, "is there and is no link" in refused.stderr) == (2, True)
