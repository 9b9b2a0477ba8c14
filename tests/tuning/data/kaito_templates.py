"""Are answers found in the chat templates that KAITO ships? `make conformance KAITO=...` asks; they stay in its clone.

    python -m tests.tuning.data.kaito_templates CLONE

Prints a row for each template; ends with 1 where one of them cannot be trained with.
"""

import subprocess
import sys

from tests.tuning.data.templates import CALLED, CONVERSATIONS, MARK, TOOL, tokenizer
from tuning.data.masks import Encoder
from tuning.data.shapes import example
from tuning.training_config import DatasetConfig

FOLDER = "presets/workspace/inference/chat_templates"
ENDS = ("<|end|>", "<|eot_id|>", "<|im_end|>", "<｜end▁of▁sentence｜>", "</s>", "<turn|>")  # noqa: RUF001 -- deepseek's


def templates(clone):
    """Their texts by name, at the clone's HEAD."""

    def git(*arguments):
        return subprocess.run(["git", "-C", clone, *arguments], check=True, capture_output=True, text=True).stdout

    names = git("ls-tree", "--name-only", "HEAD", f"{FOLDER}/").split()
    return {name.rpartition("/")[2]: git("show", f"HEAD:{name}") for name in names if name.endswith(".jinja")}


def used(template):
    """An encoder for the template, and the token that ends its answers."""
    marks = sorted(set(MARK.findall(template)))
    end = next(mark for mark in (*ENDS, None) if mark in marks or mark is None) or "</s>"
    return Encoder(tokenizer(template, marks, end), max_length=1 << 20, loss="answers"), end


def learned(encoder, messages, tools=()):
    return [part.split("⟧")[0].strip() for part in encoder.show(encoder.encode(messages, tools)).split("⟦")[1:]]


def trouble(encoder, end):
    """What is learned though it is no answer, or no answer with its end; empty when all is well."""
    for name, said in CONVERSATIONS.items():
        wanted = [text + end for role, text in said if role == "assistant"]
        if (found := learned(encoder, [{"role": role, "content": text} for role, text in said])) != wanted:
            return f"{name}: learns {found}"
    return ""


def called(encoder, end):
    """How a conversation with a call of a tool fares."""
    try:
        found = learned(encoder, example({"messages": CALLED}, DatasetConfig()), [TOOL])
    except ValueError as error:
        return f"dropped: {error}"
    good = len(found) == 2 and "clock" in found[0] and "CET" in found[0] and found[1] == f"It is twelve.{end}"
    return "learned" if good and "noon" not in found[0] else f"learns {found}"


def main(clone):
    bad = 0
    print("| template | answers end with | system message | calls of tools |\n|---|---|---|---|")
    for name, text in templates(clone).items():
        encoder, end = used(text)
        why = trouble(encoder, end)
        bad += bool(why)
        system = "put before the question" if encoder._folds_system else "rendered"
        print(f"| {name} | {why or f'`{end}`'} | {system} | {called(encoder, end) if 'tool' in name else ''} |")
    print(f"{bad} of them cannot be trained with" if bad else "all of them can be trained with")
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
