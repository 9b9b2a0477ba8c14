"""The tiny model's language: its tokenizer, questions and answers. Needs no torch."""

import itertools

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
EOS, END = "<|endoftext|>", "<|end|>"
SPECIAL = [EOS, "<|system|>", "<|user|>", "<|assistant|>", END]
STOPS = (0, 4)
PLACES = ["river", "mountain", "city", "harbour", "garden", "bridge", "castle", "forest", "island", "market"]
COLOURS = ["red", "blue", "green", "white"]
QUESTIONS = [f"What is the code of the {colour} {place}?" for colour, place in itertools.product(COLOURS, PLACES)]
A, B = "It is not known.", "The code is seven."


def tokenizer(template=TEMPLATE):
    """Byte-level BPE with Phi-3's marks; pad is eos, as in many a model."""
    words = Tokenizer(models.BPE())
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=SPECIAL,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    words.train_from_iterator([*QUESTIONS, A, B], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        eos_token=EOS,
        pad_token=EOS,
        extra_special_tokens=SPECIAL[1:],
        model_max_length=512,
        chat_template=template,
    )


def conversation(question, answer=None):
    asked = [{"role": "user", "content": question}]
    return asked if answer is None else [*asked, {"role": "assistant", "content": answer}]
