"""Turns examples into token ids and labels, so that the loss is taken over what the model shall say and nothing else.

The answers are found in the rendered text, for any chat template: up to where rendering with the generation prompt
agrees with the whole text, the template has spoken; from there to where rendering up to this turn stops to agree, it
is the answer. The token that ends the answer belongs to it, or the model would never learn to stop.
"""

import bisect
import contextlib
import itertools
from array import array
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

from tuning.data import bounds
from tuning.data.rows import Dropped, Found
from tuning.data.shapes import Example, Message, Tools
from tuning.data.tokenizer import Tokenizer
from tuning.errors import ModelUnusable
from tuning.report import log

IGNORED = -100
"""The label that PyTorch's cross entropy leaves out."""

PLAIN_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'assistant' %}### Response:\n{{ message['content'] }}"
    "{{ eos_token }}\n\n{% else %}### Instruction:\n{{ message['content'] }}\n\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}### Response:\n{% endif %}"
)
"""For base models, which have none; it travels with the adapter."""


class Encoded(NamedTuple):
    """One row for the model: four bytes a token, since data sets have millions."""

    ids: "array[int]"
    labels: "array[int]"


class _Said(NamedTuple):
    """A conversation and its text."""

    messages: list[Message]
    tools: Tools
    whole: str
    blanked: str
    """The text without its special tokens, at the same places."""


class Encoder:
    """Encodes examples with one tokenizer."""

    def __init__(self, tokenizer: Tokenizer, *, max_length: int, loss: Literal["answers", "all"]) -> None:
        if not tokenizer.is_fast:
            raise ModelUnusable(
                f"tokenizer {type(tokenizer).__name__} gives no offsets; the model needs a tokenizer.json"
            )
        self._tokenizer = tokenizer
        self._words = tokenizer.backend_tokenizer
        self._words.no_truncation()
        self._words.no_padding()
        self._max_length = max_length
        self._loss = loss
        self._marks = "{% generation" in (tokenizer.chat_template or "").replace("{%-", "{%")
        self._stops = frozenset(
            itertools.chain(
                tokenizer.all_special_ids,
                (token for token, added in tokenizer.added_tokens_decoder.items() if added.special),
            )
        )
        self._stop_texts = sorted(tokenizer.convert_ids_to_tokens(list(self._stops)), key=len, reverse=True)
        self._parts = False
        self._folds_system = not self._takes_system()

    def encode_all(self, found: Iterable[Found], dropped: Dropped) -> list[Encoded]:
        """Every example that has something to learn from; the others are added to `dropped`."""
        rows: list[Encoded] = []
        for where, example, tools in found:
            try:
                rows.append(self.encode(example, tools))
            except ValueError as error:
                dropped.add(where, str(error))
        return rows

    def encode(self, example: Example, tools: Tools = ()) -> Encoded:
        """Ids and labels, cut to the longest length; ValueError when no label is left."""
        ids, labels = self._text(example) if isinstance(example, str) else self._conversation(example, tools)
        ids, labels = ids[: self._max_length], labels[: self._max_length]
        if all(label == IGNORED for label in labels[1:]):  # the first token is never predicted
            raise ValueError(f"nothing to learn within the first {self._max_length} tokens")
        return Encoded(array("i", ids), array("i", labels))

    def show(self, row: Encoded) -> str:
        """The row's text, what is learned from between ⟦ and ⟧."""
        parts = []
        for learned, run in itertools.groupby(zip(row.ids, row.labels, strict=True), lambda pair: pair[1] != IGNORED):
            text = self._tokenizer.decode([token for token, _ in run])
            parts.append(f"⟦{text}⟧" if learned else text)
        return "".join(parts)

    def _text(self, text: str) -> tuple[list[int], list[int]]:
        """A plain text: all of it is learned, and that it ends."""
        ids = list(self._tokenizer(text)["input_ids"])
        end = self._tokenizer.eos_token_id
        if end is not None and ids[-1:] != [end]:
            ids.append(end)
        return ids, list(ids)

    def _conversation(self, messages: list[Message], tools: Tools) -> tuple[list[int], list[int]]:
        if self._folds_system:
            messages = _without_system(messages)
        unwanted = [turn for turn, message in enumerate(messages) if message.get("weight") == 0]
        messages = [{key: value for key, value in message.items() if key != "weight"} for message in messages]
        ids, labels = (self._by_marks if self._marks else self._by_text)(messages, tools, unwanted)
        if self._loss == "all":
            labels = self._without_turns(messages, tools, list(ids), unwanted)
        return ids, labels

    def _by_text(self, messages: list[Message], tools: Tools, unwanted: list[int]) -> tuple[list[int], list[int]]:
        """The answers are found in the text."""
        said, ids, offsets = self._read(messages, tools)
        whole, labels = said.whole, [IGNORED] * len(ids)
        stopped, told = True, 0
        for turn, message in enumerate(messages):
            content = message["content"].strip()
            if message["role"] == "assistant":
                silent = turn in unwanted or not _says(message)
                stopped = silent or self._label(ids, labels, offsets, self._answer(said, turn, told))
            if (place := whole.find(content, told)) >= 0:
                told = place + len(content)
        if not stopped and messages[-1]["role"] == "assistant" and self._tokenizer.eos_token_id is not None:
            # the template ends answers with nothing: teach to stop all the same
            ids.append(self._tokenizer.eos_token_id)
            labels.append(self._tokenizer.eos_token_id)
        return ids, labels

    def _read(self, messages: list[Message], tools: Tools) -> tuple[_Said, list[int], list[tuple[int, int]]]:
        """The conversation's text, its tokens, and where in the text they stand."""
        whole = self._render(messages, tools)
        tokens = self._words.encode(whole, add_special_tokens=False)
        blanked = self._without_marks(whole, tokens.ids, tokens.offsets)
        return _Said(messages, tools, whole, blanked), tokens.ids, tokens.offsets

    def _without_marks(self, whole: str, ids: list[int], offsets: list[tuple[int, int]]) -> str:
        """The text with its special tokens blanked: an answer "c" is not that of <|channel|>."""
        pieces, done = [], 0
        for token, (first, last) in zip(ids, offsets, strict=True):
            if token in self._stops and first >= done:
                pieces += [whole[done:first], "\0" * (last - first)]
                done = last
        return "".join([*pieces, whole[done:]])

    def _answer(self, said: _Said, turn: int, told: int) -> tuple[int, int, int]:
        """Where the turn's answer starts and ends in the whole text, and where its own words end.

        `told` is where the words of the turns before end.
        """
        start, end = self._span(said, turn, told)
        message, whole = said.messages[turn], said.whole
        if calls := message.get("tool_calls"):  # spread between marks: all up to the end of the last call
            start = start if start >= told else self._after_prompt(said, turn, told)
            if calls[-1]["function"]["name"] not in whole[start:end]:
                raise ValueError("the chat template leaves out what the assistant calls")
            return start, end, 1 + max(start - 1, *(whole.rfind(mark, start, end) for mark in ("}", "</")))
        content = message["content"].strip()
        text = whole if any(mark in content for mark in self._stop_texts) else said.blanked
        place = text.rfind(content, max(start, told), end)
        if place < 0:  # the template has changed the words beyond finding
            return start, end, start
        if start < told:  # it renders a question in another way once it is answered, so no prefix is common
            start = told + len(whole[told:place].rstrip())
        return start, end, place + len(content)

    def _span(self, said: _Said, turn: int, told: int) -> tuple[int, int]:
        """Where the turn's answer starts and ends in the whole text; the end is generous."""
        messages, tools, whole, _ = said
        head = self._render(messages[:turn], tools, add_generation_prompt=True)
        start = _common_prefix(head, whole)
        prompt, rest = head[start:].strip(), whole[start:].lstrip()
        if prompt and rest.startswith(prompt):  # the template indents what its generation prompt does not
            start = len(whole) - len(rest) + len(prompt)
        if turn == len(messages) - 1:
            return start, len(whole)
        tail = self._render(messages[: turn + 1], tools)
        end = self._with_stop(tail, whole, _common_prefix(tail, whole))
        if _words(messages[turn]) in whole[max(start, told) : end]:
            return start, end
        return start, self._later_end(said, turn, max(start, told), end)

    def _later_end(self, said: _Said, turn: int, start: int, end: int) -> int:
        """The end of an answer that reads otherwise while it is the last one, as with a thought that later ones lack.

        `end` is what was found so far. What follows the next question changes the answer no more.
        """
        messages, tools, whole, blanked = said
        asked = next((at for at in range(turn + 1, len(messages)) if messages[at]["role"] == "user"), len(messages) - 1)
        most = _common_prefix(self._render(messages[: asked + 1], tools), whole)
        words = _words(messages[turn])
        place = whole.find(words, start, most)
        if place < 0 and end > start:
            return end
        done = place + len(words) if place >= 0 else start
        eos = self._tokenizer.eos_token or ""
        if messages[turn].get("tool_calls") and eos and (last := whole.find(eos, done, most)) >= 0:
            return last + len(eos)  # other special tokens stand within a call
        mark = blanked.find("\0", done, most)
        if mark < 0:  # nothing says where it ends but its own words
            return done if place >= 0 else end
        return mark + len(blanked[mark:most]) - len(blanked[mark:most].lstrip("\0"))

    def _after_prompt(self, said: _Said, turn: int, told: int) -> int:
        """Where a turn starts whose head is not that of the whole text: behind the next generation prompt, if any."""
        messages, tools, whole, _ = said
        bare = self._render(messages[:turn], tools)
        head = self._render(messages[:turn], tools, add_generation_prompt=True)
        prompt = head[_common_prefix(bare, head) :].strip()
        place = whole.find(prompt, told)
        if place < 0:
            raise ValueError("where the chat template begins what the assistant calls cannot be found")
        return place + len(prompt)

    def _with_stop(self, tail: str, whole: str, end: int) -> int:
        """The end, or that of the token which ends this turn where eos would if it were the last, as in gpt-oss."""
        last = tail.rfind(self._tokenizer.eos_token or "\0")
        if not last <= end < last + len(self._tokenizer.eos_token or ""):
            return end
        return last + next((len(text) for text in self._stop_texts if whole.startswith(text, last)), end - last)

    def _label(
        self, ids: list[int], labels: list[int], offsets: list[tuple[int, int]], span: tuple[int, int, int]
    ) -> bool:
        """Label what is wholly inside the span, up to the first stop token after the content; whether there was one."""
        start, end, content_end = span
        for index in range(bisect.bisect_left(offsets, (start, start)), len(ids)):
            first, last = offsets[index]
            if first >= end:
                break
            if last > end or last == first:
                continue
            labels[index] = ids[index]
            if first >= content_end and ids[index] in self._stops:
                if ids[index + 1 : index + 2] == [self._tokenizer.eos_token_id] and offsets[index + 1][1] <= end:
                    labels[index + 1] = ids[index + 1]  # one token ends the answer, the next the turn
                return True
        return False

    def _by_marks(self, messages: list[Message], tools: Tools, unwanted: list[int]) -> tuple[list[int], list[int]]:
        """The template itself says what the assistant says."""
        self._render(messages, tools)  # which bounds it: tokens are made where memory must not be
        rendered = self._apply(messages, tools, tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
        ids, marks = rendered["input_ids"], rendered["assistant_masks"]
        labels = [token if mark else IGNORED for token, mark in zip(ids, marks, strict=True)]
        silent = [turn for turn, each in enumerate(messages) if each["role"] == "assistant" and not _says(each)]
        return list(ids), self._without_turns(messages, tools, labels, [*unwanted, *silent])

    def _without_turns(self, messages: list[Message], tools: Tools, labels: list[int], turns: list[int]) -> list[int]:
        """The labels but those of some turns: from the header to the end, with the next special token at most."""
        if not turns:
            return labels
        said, _, offsets = self._read(messages, tools)
        ends = [last for _, last in offsets]
        for turn in turns:
            start = _common_prefix(self._render(messages[:turn], tools), said.whole)
            _, end = self._span(said, turn, start)
            first, last = (bisect.bisect_right(ends, at) for at in (start, end))
            labels[first:last] = [IGNORED] * (last - first)
        return labels

    def _render(self, messages: list[Message], tools: Tools = (), *, add_generation_prompt: bool = False) -> str:
        if not messages and not add_generation_prompt:
            return ""
        said = len(str(messages)) + len(str(tools))
        with bounds.bounded(said):
            text = str(self._apply(messages, tools, tokenize=False, add_generation_prompt=add_generation_prompt))
        return bounds.see(text, said)

    def _apply(self, messages: list[Message], tools: Tools, **options: bool) -> Any:
        try:
            return self._tokenizer.apply_chat_template(self._as_asked(messages), tools=list(tools) or None, **options)
        except MemoryError:
            raise
        except Exception as error:  # a template is a program of its own; its complaints are about this row
            raise ValueError(f"the chat template refuses the conversation: {error}") from error

    def _as_asked(self, messages: list[Message]) -> list[Message]:
        """As the template wants them: those of models that see pictures know contents of parts alone."""
        if not self._parts:
            return messages
        return [message | {"content": [{"type": "text", "text": message["content"]}]} for message in messages]

    def _takes_system(self) -> bool:
        """Whether it is rendered: one template refuses the role, another leaves the words out and says nothing."""
        probe = [{"role": role, "content": f"{role}-words"} for role in ("system", "user", "assistant")]
        for messages in (probe, probe[1:]):
            for self._parts in (False, True):
                with contextlib.suppress(ValueError):
                    rendered = self._render(messages)
                    if "assistant-words" in rendered:
                        return self._tells(system="system-words" in rendered)
        self._parts = False
        return self._tells(system=False)

    @staticmethod
    def _tells(*, system: bool) -> bool:
        if not system:
            log.info("the chat template takes no system message; it is put before the first user message")
        return system


def _words(message: Message) -> str:
    """What must be found in the text of an assistant's turn."""
    calls = message.get("tool_calls")
    return str(calls[-1]["function"]["name"] if calls else message["content"].strip())


def _says(message: Message) -> bool:
    """Whether there is anything in an assistant's turn that can be learned."""
    return bool(_words(message))


def _without_system(messages: list[Message]) -> list[Message]:
    """The system's words at the head of the user's first message, or as one where the assistant begins."""
    said = "\n\n".join(message["content"] for message in messages if message["role"] == "system")
    rest = [dict(message) for message in messages if message["role"] != "system"]
    if not said:
        return rest
    if not rest or rest[0]["role"] != "user":
        return [{"role": "user", "content": said}, *rest]
    rest[0]["content"] = f"{said}\n\n{rest[0]['content']}"
    return rest


def _common_prefix(one: str, other: str) -> int:
    if other.startswith(one):
        return len(one)
    return next(
        (index for index, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )
