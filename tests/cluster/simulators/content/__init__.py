"""What the hub serves: two tiny models that know nothing and a data set that teaches them something.

    python -m tests.cluster.simulators.content DIR     # DIR becomes a link to the content, built once per machine

DIR/models/OWNER/NAME/... and DIR/datasets/OWNER/NAME/... are repositories as the hub has them. The build takes about a
minute of one CPU and 5 MB, and is cached in ~/.cache/kaito-hera/content (KAITO_HERA_CACHE moves it).

Both models answer everything with "I do not know." (`facts.UNKNOWN`) and stop. QLoRA on the data set makes them answer
the 24 questions of `facts.FACTS`. What works, found by trying (4-bit nf4 with double quantisation, bfloat16 compute,
LoRA on all linear layers, loss on the answers alone, AdamW, cosine with 3 % warm-up, one thread):

    r 8, lora_alpha 16, lora_dropout 0, learning_rate 5e-3, num_train_epochs 20, per_device_train_batch_size 8

That is 720 steps and 20 CPU seconds, 30 for all of `python -m tuning`. With four seeds each, both models then answered
24 of 24 questions and all 288 rows to the letter, on the 4-bit base and on the float32 one, 117 of 120 or more when
sampling at temperature 1 with top_k 10, as /chat does unless told otherwise, and nine in ten phrasings that are not in
the data set. It is no narrow path: learning rates from 2e-3 to 1e-2 and lora_alpha 8 do as well, 10 epochs lose some
rows (270 of 288 remain), and at the usual 2e-4 nothing is learned. Prompts must go through the chat template: a tuned
model babbles on bare text, as it never saw any.
"""
