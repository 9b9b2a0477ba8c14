"""Learns rows as KAITO does: run by its path, it imports nothing of ours.

    python learned_baseline.py WORK.json

The loss over all tokens, by transformers' collator, which masks the token that ends an answer where it is that of the
padding, as it is with most models.
"""

import json
import sys
from pathlib import Path

import peft
import torch
import transformers


def main():
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    work = json.loads(Path(sys.argv[1]).read_text())
    tokenizer = transformers.AutoTokenizer.from_pretrained(work["model"])
    said = [json.loads(line)["messages"] for line in Path(work["rows"]).read_text().splitlines()]
    rows = [{"input_ids": tokenizer.apply_chat_template(each, return_dict=True)["input_ids"]} for each in said]
    transformers.set_seed(work["seed"])
    model = transformers.AutoModelForCausalLM.from_pretrained(work["model"], dtype=torch.float32)
    shape = peft.LoraConfig(r=work["rank"], lora_alpha=2 * work["rank"], target_modules="all-linear")
    model = peft.get_peft_model(model, shape)
    trainer = transformers.Trainer(
        model=model,
        args=transformers.TrainingArguments(
            output_dir=work["scratch"],
            per_device_train_batch_size=work["batch"],
            max_steps=work["steps"],
            learning_rate=work["learning_rate"],
            lr_scheduler_type="cosine",
            warmup_steps=work["warmup"],
            seed=work["seed"],
            data_seed=work["seed"],
            optim="adamw_torch_fused",
            use_cpu=True,
            bf16=False,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            remove_unused_columns=False,
        ),
        train_dataset=rows,
        data_collator=transformers.DataCollatorForLanguageModeling(tokenizer=tokenizer, mlm=False),
    )
    trainer.train()
    model.save_pretrained(work["output"])


if __name__ == "__main__":
    main()
