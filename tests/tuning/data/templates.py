"""What chat templates of the world are tried with: conversations, and a tokenizer that knows their marks."""

import re

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

MARK = re.compile(
    r"<[|｜][^<>{}'\" ]+?[|｜]>|<(?:start|end)_of_turn>|</?s>|<end_of_utterance>|<turn\|>|<\|turn>|\[/?INST\]|\[gMASK\]"  # noqa: RUF001 -- deepseek's
)

CONVERSATIONS = {
    "one": [("user", "What is 2+2?"), ("assistant", "It is 4.")],
    "two": [("user", "Hi"), ("assistant", "Hello there."), ("user", "Bye"), ("assistant", "See you.")],
    "system": [("system", "Be terse."), ("user", "Capital of France?"), ("assistant", "Paris")],
    "same": [("user", "Paris"), ("assistant", "Paris"), ("user", "Paris"), ("assistant", "Paris")],
    "spaces": [("user", " a "), ("assistant", "indented\n\n  text"), ("user", "b"), ("assistant", "c")],
    "three": [("user", "1"), ("assistant", "2")] * 3,
}


def tokenizer(template, marks, eos):
    words = Tokenizer(models.BPE())
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=500, initial_alphabet=alphabet, show_progress=False)
    words.train_from_iterator([text for said in CONVERSATIONS.values() for _, text in said] * 3 + ["\n\n"] * 9, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        bos_token="<bos>",
        eos_token=eos,
        extra_special_tokens=[mark for mark in marks if mark != eos],
        chat_template=template,
    )


CALL = {
    "role": "assistant",
    "content": "",
    "tool_calls": [{"id": "abcdefghi", "function": {"name": "clock", "arguments": {"zone": "CET"}}}],
}
TOOL = {
    "type": "function",
    "function": {
        "name": "clock",
        "description": "the time",
        "parameters": {"type": "object", "properties": {"zone": {"type": "string", "description": "z"}}},
    },
}
CALLED = [
    {"role": "user", "content": "What time is it?"},
    CALL,
    {"role": "tool", "name": "clock", "tool_call_id": "abcdefghi", "content": "noon"},
    {"role": "assistant", "content": "It is twelve."},
]
