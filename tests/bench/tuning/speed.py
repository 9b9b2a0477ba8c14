"""Speed and memory of our loop over the baseline's, in processes of their own that take turns.

Times are CPU seconds of one thread, of all steps but the first.
"""

import json
import os
import random
import statistics
import subprocess
import sys
from pathlib import Path

import torch
import transformers

ROOT = Path(__file__).parents[3]
BASELINE = (str(Path(__file__).parent / "baseline.py"),)
OURS = ("-m", "tests.bench.tuning.ours")
BATCH, STEPS = 8, 8
VOCABULARY = 2048
"""The head is a ninth of the model then; Mistral's is a fiftieth, Phi-4-mini's a sixth."""
EVEN = 16
"""Steps of one row of 512 tokens."""
HEAD = {"vocabulary": 200_000, "hidden": 512, "tokens": 1024, "supervised": 0.45}
BARS = {
    "packing_ratio": (2.0, "at least"),
    "rows_per_s_ratio": (3.5, "at least"),
    "head_peak_ratio": (0.2, "at most"),
    "loop_overhead": (1.05, "at most"),
}
MIDDLE = statistics.median
"""What the bars are of."""


def figures(pairs, scratch, only=BARS):
    """Name to what each pair of processes gave."""
    return {name: [PARTS[name](scratch) for _ in range(pairs)] for name in only}


def packing(scratch):
    """Padded batches over packed ones; all else as the library has it."""
    work = dolly(scratch) | {"checkpointing": False, "chunked_head": False}
    work["prompts"] = [0] * len(work["rows"])
    return seconds(BASELINE, "train", work) / seconds(OURS, "train", work)


def all_levers(scratch):
    """KAITO's way over ours: answers alone, packed, without all logits, with activations kept."""
    work = dolly(scratch) | {"checkpointing": True, "chunked_head": True}
    return seconds(BASELINE, "train", work) / seconds(OURS, "train", work)


def head_peak(scratch):
    """Memory for loss and gradient of 1,024 tokens of which 45 % are supervised."""
    work = HEAD | {"scratch": str(scratch)}
    theirs = run(BASELINE, "head", work)["mib"]
    return run(OURS, "head", work)["mib"] / theirs


def overhead(scratch):
    """Our loop over one that does nothing but compute, both with the library's loss."""
    drawn = random.Random(0)
    rows = [[drawn.randrange(5, VOCABULARY) for _ in range(512)] for _ in range(EVEN)]
    work = common(scratch, layers=6) | {"batch": 1, "rows": rows, "prompts": [0] * EVEN, "chunked_head": False}
    theirs = seconds(BASELINE, "bare", work)
    return seconds(OURS, "train", work) / theirs


PARTS = dict(zip(BARS, (packing, all_levers, head_peak, overhead), strict=True))


def dolly(scratch):
    """Rows with lengths as those of dolly-15k, in the order that both train in; each with its prompt's length."""
    drawn, rows, prompts = random.Random(0), [], []
    for _ in range(BATCH * STEPS):
        context = drawn.lognormvariate(5.25, 0.8) if drawn.random() < 0.3 else 0
        prompt = 8 + int(drawn.lognormvariate(2.56, 0.62) + context)
        length = prompt + max(1, int(drawn.lognormvariate(3.78, 1.1)))
        rows.append([drawn.randrange(5, VOCABULARY) for _ in range(min(length, 1024))])
        prompts.append(min(prompt, 900))
    return common(scratch, layers=4) | {"batch": BATCH, "rows": rows, "prompts": prompts}


def common(scratch, *, layers):
    """A Phi-3 with random weights, and a place for what the library writes."""
    folder = scratch / f"phi-{layers}"
    if not folder.exists():
        torch.manual_seed(0)
        config = transformers.Phi3Config(
            vocab_size=VOCABULARY,
            hidden_size=384,
            intermediate_size=1024,
            num_hidden_layers=layers,
            num_attention_heads=6,
            num_key_value_heads=6,
            max_position_embeddings=2048,
            original_max_position_embeddings=2048,
            pad_token_id=0,
            bos_token_id=0,
            eos_token_id=0,
        )
        transformers.Phi3ForCausalLM(config).save_pretrained(folder)
    return {"model": str(folder), "scratch": str(scratch / "trainer")}


def seconds(who, what, work):
    return sum(run(who, what, work)["seconds"])


def run(who, what, work):
    """What one process says of the work."""
    path = Path(work["scratch"]).parent / "work.json"
    path.write_text(json.dumps(work))
    command = [sys.executable, *who, what, str(path)]
    quiet = {"OMP_NUM_THREADS": "1", "TRANSFORMERS_VERBOSITY": "error", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, cwd=ROOT, env=os.environ | quiet, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])
