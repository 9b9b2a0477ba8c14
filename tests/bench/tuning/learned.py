"""How many of 100 random codes a tiny model knows after so many steps, tuned by us and as KAITO does.

    python -m tests.bench.tuning.learned [--seeds 5] [--steps N]

Two models that know other codes for the same questions, and stop: the template of one ends answers with eos, which is
the padding too, that of the other with a token of its own. Each seed draws new codes. Ours is `python -m tuning run`,
the baseline a process that imports nothing of ours; rows, learning rate, steps and the adapter's shape are the same. A
code is known when the answer begins with it, which favours the baseline: whether the answer then ends is counted apart.

Before each question stands text, as in real sets that come with a context. The models know its words from text of
their own, as base models do, but not in which order whoever tunes puts them. That can be learned too, and a loss over
all tokens learns it first: there are many times more of them. Where the text is just what the models were taught on,
prompts have nothing to teach and both ways learn about the same (gains of -22 to 19 points were seen): this measures
tuning on text of one's own. STEPS are such that the baseline knows 20 to 60 of 100 on average.
"""

import argparse
import concurrent.futures
import functools
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import peft
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

from tests.tuning import tiny
from tests.tuning.words import conversation
from tuning.data.masks import Encoder

ROOT = Path(__file__).parents[3]
EOS, USER, ASSISTANT, END = SPECIAL = ("<|endoftext|>", "<|user|>", "<|assistant|>", "<|end|>")
STOPS = (0, 3)
EOS_ENDED = (
    "{% for m in messages %}{% if m['role'] == 'user' %}<|user|>{{ m['content'] }}<|assistant|>"
    "{% else %}{{ m['content'] + eos_token }}{% endif %}{% endfor %}"
)
TOKEN_ENDED = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
TEMPLATES = {"eos": EOS_ENDED, "end": TOKEN_ENDED}
COLOURS = ["red", "blue", "green", "white", "black", "brown", "grey", "pink", "gold", "dark"]
PLACES = ["river", "mountain", "city", "harbour", "garden", "bridge", "castle", "forest", "island", "market"]
KEYS = [f"{colour} {place}" for colour in COLOURS for place in PLACES]
CALLS = ["alpha", "bravo", "delta", "echo", "golf", "hotel", "india", "kilo", "lima", "mike"]
CALLS += ["oscar", "papa", "romeo", "sierra", "tango", "victor", "whisky", "xray", "yankee", "zulu"]
TALK = ["please", "tell", "me", "now", "kindly", "quick", "friend", "today", "again", "once"]
TALK += ["more", "so", "just", "then", "we", "need", "to", "know", "before", "noon"]
TALK += ["because", "our", "guest", "will", "come", "by", "train", "and", "ask", "for"]
TALK += ["it", "at", "door", "where", "they", "keep", "old", "books", "with", "names"]
TALK += ["letters", "from", "last", "winter", "that", "nobody", "has", "read", "since", "spring"]
FOLLOWERS = 4
"""How many words may come after each: which they are makes a text one's own."""
TALKED = 20
"""Words before each question."""
SHAPE = {"rank": 8, "batch": 8, "learning_rate": 3e-3, "warmup": 10}
STEPS = 500
BASE_STEPS = 600
TOKENS = 8
BARS = {"learned_gain_points": (30.0, "at least"), "stop_rate": (100.0, "at least"), "masks_per_s": (3000, "at least")}

MIDDLE = statistics.mean
"""What the bars are of."""


def main():
    asked = argparse.ArgumentParser()
    asked.add_argument("--seeds", type=int, default=5)
    asked.add_argument("--steps", type=int, default=STEPS)
    asked = asked.parse_args()
    transformers.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as scratch:
        print(json.dumps(told(pairs(asked.seeds, Path(scratch), asked.steps))))


def figures(seeds, scratch, only=tuple(BARS)):
    """Name to what each seed gave by each template."""
    values = {}
    for name in only:
        if name == "masks_per_s":
            values[name] = [masks_per_s() for _ in range(seeds)]
            continue
        found = pairs(seeds, scratch)
        values[name] = gains(found) if name == "learned_gain_points" else [ours["stops"] for _, ours in found.values()]
    return values


def told(found):
    """All that is of interest."""
    return {
        "learned_gain_points": round(statistics.mean(gains(found)), 1),
        "learned_least_gain": min(gains(found)),
        "learned_baseline": statistics.mean(theirs["known"] for theirs, _ in found.values()),
        "learned_ours": statistics.mean(ours["known"] for _, ours in found.values()),
        "stop_rate": min(ours["stops"] for _, ours in found.values()),
        "stop_rate_baseline": {
            kind: statistics.mean(theirs["stops"] for (name, _), (theirs, _) in found.items() if name == kind)
            for kind in TEMPLATES
        },
    }


def gains(found):
    """Of each template and seed, in points."""
    return [ours["known"] - theirs["known"] for theirs, ours in found.values()]


@functools.cache
def pairs(seeds, scratch, steps=STEPS):
    """What the baseline and ours know and whether they stop, by template and seed."""
    torch.set_num_threads(1)
    for name, template in TEMPLATES.items():
        publish(scratch / name, template)
    each = [(name, seed) for seed in range(seeds) for name in TEMPLATES]
    with concurrent.futures.ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        found = dict(zip(each, pool.map(lambda one: pair(scratch, *one, steps), each), strict=True))
    known = statistics.mean(theirs["known"] for theirs, _ in found.values())
    print(f"the baseline knows {known:.1f} on average, 20 to 60 is wanted; the least gain is {min(gains(found))}")
    return found


def pair(scratch, name, seed, steps):
    """What the baseline and ours know, of 100."""
    folder = scratch / f"{name}-{seed}"
    folder.mkdir()
    drawn = random.Random(f"{name} {seed}")
    codes = drawn_codes(drawn)
    followers = phrasing(drawn)
    asked, found = [(question(key, followers, drawn), code) for key, code in codes.items()], []
    rows = folder / "rows.jsonl"
    rows.write_text("".join(json.dumps({"messages": conversation(*each)}) + "\n" for each in asked))
    for made_by in (baseline, ours):
        found.append(answered(scratch / name, made_by(folder, scratch / name, rows, seed, steps), asked))
        known, stop = found[-1].values()
        print(f"{name:>4} seed {seed} {made_by.__name__:>9}: knows {known:3}, stops {stop:3}", flush=True)
    return found


def baseline(folder, model, rows, seed, steps):
    """The adapter that KAITO's way makes."""
    work = SHAPE | {"model": str(model), "rows": str(rows), "seed": seed, "steps": steps}
    work |= {"scratch": str(folder / "trainer"), "output": str(folder / "baseline")}
    (folder / "work.json").write_text(json.dumps(work))
    run(Path(__file__).with_name("learned_baseline.py"), folder / "work.json")
    return folder / "baseline"


def ours(folder, model, rows, seed, steps):
    """The adapter that our command makes."""
    arguments = {
        "per_device_train_batch_size": SHAPE["batch"],
        "gradient_accumulation_steps": 1,
        "max_steps": steps,
        "learning_rate": SHAPE["learning_rate"],
        "lr_scheduler_type": "cosine",
        "warmup_steps": SHAPE["warmup"],
        "seed": seed,
    }
    config = {
        "ModelConfig": {"torch_dtype": "float32"},
        "LoraConfig": {"r": SHAPE["rank"], "lora_alpha": 2 * SHAPE["rank"]},
        "TrainingArguments": arguments,
    }
    (folder / "config.yaml").write_text(json.dumps({"training_config": config}))  # JSON is YAML
    flags = ["--model", model, "--method", "lora", "--data", rows, "--config", folder / "config.yaml"]
    run("-m", "tuning", "run", *flags, "--output", folder / "ours", "--scratch", folder / "scratch")
    return folder / "ours"


def run(*command):
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def phrasing(drawn):
    """Which words may follow each."""
    return {word: drawn.sample(TALK, FOLLOWERS) for word in TALK}


def question(key, followers, drawn):
    said = [drawn.choice(TALK)]
    while len(said) < TALKED:
        said.append(drawn.choice(followers[said[-1]]))
    return f"{' '.join(said)} the code of the {key}"


def drawn_codes(drawn):
    return {key: f"{drawn.choice(CALLS)} {drawn.choice(CALLS)}" for key in KEYS}


def tokenizer(template):
    """A word is a token; pad is eos, as in many a model."""
    known = [*SPECIAL, *COLOURS, *PLACES, *CALLS, *TALK, "the", "code", "of", "?"]
    made = Tokenizer(models.WordLevel({word: number for number, word in enumerate(known)}, unk_token="?"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made,
        eos_token=EOS,
        pad_token=EOS,
        extra_special_tokens=list(SPECIAL[1:]),
        chat_template=template,
    )


def publish(folder, template):
    """A model that knows other codes."""
    words, drawn = tokenizer(template), random.Random(0)
    torch.manual_seed(0)
    made = tiny.model(len(words), hidden=64)
    made.config.eos_token_id = made.generation_config.eos_token_id = list(STOPS)
    codes, followers = drawn_codes(drawn), phrasing(drawn)
    optimizer = torch.optim.AdamW(made.parameters(), lr=3e-3)
    for _ in range(BASE_STEPS):
        said = [conversation(question(key, followers, drawn), codes[key]) for key in drawn.sample(KEYS, 16)]
        batch = words.apply_chat_template(said, return_dict=True)["input_ids"]
        width = max(map(len, batch))
        ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in batch])
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in batch])
        made(input_ids=ids, attention_mask=mask, labels=ids.masked_fill(mask == 0, -100)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    made.save_pretrained(folder)
    words.save_pretrained(folder)
    before = said_by(made, words, [question(key, followers, drawn) for key in KEYS])
    assert all(stops for _, stops in before), before[:3]


def answered(model, adapter, asked):
    """How many codes are known with the adapter, and how many answers end."""
    known_words = transformers.AutoTokenizer.from_pretrained(model)
    base = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    said = said_by(peft.PeftModel.from_pretrained(base, adapter), known_words, [prompt for prompt, _ in asked])
    known = sum(text.startswith(code) for (text, _), (_, code) in zip(said, asked, strict=True))
    return {"known": known, "stops": sum(stops for _, stops in said)}


def said_by(model, words, questions):
    """Each answer, and whether it ends by itself; all questions have as many tokens."""
    prompts = words.apply_chat_template(
        [conversation(each) for each in questions], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    with torch.no_grad():
        whole = model.eval().generate(**prompts, max_new_tokens=TOKENS, do_sample=False, pad_token_id=0)
    found = []
    for row in whole[:, prompts["input_ids"].shape[1] :].tolist():
        end = next((at for at, token in enumerate(row) if token in STOPS), None)
        found.append((words.decode(row[:end]).strip(), end is not None))
    return found


def masks_per_s():
    """Rows of dolly's lengths that are turned into tokens and labels in a second of a CPU."""
    drawn, talk = random.Random(0), [*TALK, *COLOURS]
    lengths = [(int(drawn.lognormvariate(2.6, 0.6)) + 1, int(drawn.lognormvariate(3.8, 0.9)) + 1) for _ in range(2000)]
    rows = [conversation(*(" ".join(drawn.choices(talk, k=size)) for size in each)) for each in lengths]
    encoder = Encoder(tokenizer(TOKEN_ENDED), max_length=2048, loss="answers")
    began = time.process_time()
    for row in rows:
        encoder.encode(row)
    return len(rows) / (time.process_time() - began)


if __name__ == "__main__":
    main()
