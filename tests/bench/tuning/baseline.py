"""Tuning as KAITO does it, on rows that are given: run by its path, it imports nothing of ours.

    python baseline.py train|bare|head WORK.json

Padded batches in the order of the rows, the loss over all tokens, the whole head, activations computed twice unless the
work says otherwise; `bare` is a loop of forward, backward, clipping and step alone. Prints one JSON object.
"""

import itertools
import json
import resource
import sys
import time
from pathlib import Path

import peft
import torch
import transformers

IGNORED = -100


def main():
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    work = json.loads(Path(sys.argv[2]).read_text())
    print(json.dumps({"train": train, "bare": bare, "head": head}[sys.argv[1]](work)))


def adapted(work):
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_pretrained(work["model"], attn_implementation="sdpa")
    model.config.use_cache = False
    config = peft.LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
    return peft.get_peft_model(model, config)


def train(work):
    """CPU seconds of each step but the first."""
    clock = Clock()
    trainer = transformers.Trainer(
        model=adapted(work),
        args=transformers.TrainingArguments(
            output_dir=work["scratch"],
            per_device_train_batch_size=work["batch"],
            num_train_epochs=1,
            train_sampling_strategy="sequential",
            activation_checkpointing=work["checkpointing"],
            activation_checkpointing_kwargs={"use_reentrant": False},
            learning_rate=2e-4,
            optim="adamw_torch_fused",
            use_cpu=True,
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            remove_unused_columns=False,
        ),
        train_dataset=work["rows"],
        data_collator=padded,
        callbacks=[clock],
    )
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train()
    return {"seconds": clock.seconds()}


def padded(rows):
    width = max(len(row) for row in rows)
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    return {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, IGNORED)}


class Clock(transformers.TrainerCallback):
    """Process time at the end of each step."""

    def __init__(self):
        self.ends = []

    def on_step_end(self, *_unused, **_more):
        self.ends.append(time.process_time())

    def seconds(self):
        return [after - before for before, after in itertools.pairwise(self.ends)]


def bare(work):
    """The same, of a loop that does nothing else."""
    model = adapted(work).train()
    learned = [each for each in model.parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=2e-4, fused=True)
    ends = []
    for row in work["rows"]:
        ids = torch.tensor([row])
        model(input_ids=ids, position_ids=torch.arange(len(row))[None], labels=ids).loss.backward()
        torch.nn.utils.clip_grad_norm_(learned, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        ends.append(time.process_time())
    return {"seconds": [after - before for before, after in itertools.pairwise(ends)]}


def head(work):
    """How much memory the loss and its gradient take at the most, in MiB."""
    hidden, weight, labels = inputs(work)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    logits = (hidden @ weight.T).float()
    targets = torch.nn.functional.pad(labels, (0, 1), value=IGNORED)[:, 1:]
    torch.nn.functional.cross_entropy(logits.view(-1, len(weight)), targets.reshape(-1)).backward()
    return {"mib": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024}


def inputs(work):
    torch.manual_seed(0)
    weight = torch.randn(work["vocabulary"], work["hidden"], dtype=torch.bfloat16)
    hidden = torch.randn(1, work["tokens"], work["hidden"], dtype=torch.bfloat16, requires_grad=True)
    labels = torch.randint(0, work["vocabulary"], (1, work["tokens"]))
    labels[torch.rand(labels.shape) > work["supervised"]] = IGNORED
    return hidden, weight, labels


if __name__ == "__main__":
    main()
