import pytest

from tests.tuning import words
from tuning.data import masks
from tuning.data.masks import IGNORED, Encoder
from tuning.data.rows import Dropped, Found
from tuning.errors import ModelUnusable

TURNS = [
    {"role": "user", "content": "What is the code?"},
    {"role": "assistant", "content": "It is four."},
    {"role": "user", "content": "And the city?"},
    {"role": "assistant", "content": "Paris"},
]
WITH_SYSTEM = [{"role": "system", "content": "Be terse."}, *TURNS]

EOS_ENDED = (  # as mistral's: the answer ends with eos, which is pad
    "{% for m in messages %}{% if m['role'] == 'user' %}<|user|>{{ m['content'] }}<|assistant|>"
    "{% elif m['role'] == 'assistant' %}{{ m['content'] + eos_token }}{% endif %}{% endfor %}"
)
SPACED = EOS_ENDED.replace("{{ m['content'] + eos_token }}", "{{ ' ' + m['content'] + eos_token }}")
HEADER_ALWAYS = (  # opens the next answer even where nobody asked for it
    "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + '<|end|>' }}{% endfor %}<|assistant|>"
)
THINKING = words.TEMPLATE.replace("{{ '<|assistant|>\n' }}", "{{ '<|assistant|>\n<think>' }}")
STRIPPING = words.TEMPLATE.replace("message['content']", "message['content'] | trim")
ENDLESS = (
    "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
INDENTED = (  # as KAITO's for phi-4: the answer's header is indented, the generation prompt is not
    "{% for m in messages %}{% if m['role'] == 'user' %}<|user|>{{ m['content'] }}<|end|>{% else %}"
    "   <|assistant|>{{ m['content'] }}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
LAST_QUESTION_FIRST = (  # as KAITO's for mistral: the system's words go before the last question, if it is open
    "{% for m in messages %}{% if m['role'] == 'user' %}<|user|>{{ 'Be terse. ' if loop.last }}{{ m['content'] }}"
    "<|assistant|>{% else %} {{ m['content'] }}<|end|>{% endif %}{% endfor %}"
)
TWO_ENDS = words.TEMPLATE.replace(  # as command-r's: a token ends the answer, another the turn
    "<|end|>\n", "<|end|><|endoftext|>\n"
)
MARKED = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}<|assistant|>{%- generation %}{{ m['content'] }}<|end|>"
    "{% endgeneration %}{% else %}<|user|>{{ m['content'] }}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
THINKS_LAST = (  # as Qwen3's: the answer after the last question has a thought, earlier ones lose theirs
    "{% set last = namespace(user=-1) %}{% for m in messages %}{% if m['role'] == 'user' %}"
    "{% set last.user = loop.index0 %}{% endif %}{% endfor %}"
    "{% for m in messages %}<|{{ m['role'] }}|>\n"
    "{% if m['role'] == 'assistant' and loop.index0 > last.user %}"
    "<think>\n{{ m['reasoning_content'] or '' }}\n</think>\n\n{% endif %}{{ m['content'].split('</think>')[-1] }}"
    "{% for call in m['tool_calls'] or [] %}<call>{{ call['function'] | tojson }}</call>{% endfor %}"
    "<|end|>\n{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
NO_SYSTEM = EOS_ENDED.replace(
    "{% for m in messages %}",
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}{% for m in messages %}",
)

IGNORES_SYSTEM = words.TEMPLATE.replace(  # as phi-3's first: it has no branch for the role
    "{{ '<|'", "{% if message['role'] != 'system' %}{{ '<|'"
).replace("{% endfor %}", "{% endif %}{% endfor %}")


def encoder(template=words.TEMPLATE, *, max_length=512, loss="answers"):
    return Encoder(words.tokenizer(template), max_length=max_length, loss=loss)


def learned(template, messages, **options):
    """The text of each learned run."""
    used = encoder(template, **options)
    row = used.encode(messages)
    assert len(row.ids) == len(row.labels)
    assert all(label in (IGNORED, token) for token, label in zip(row.ids, row.labels, strict=True))
    return [part.split("⟧")[0] for part in used.show(row).split("⟦")[1:]]


@pytest.mark.parametrize(
    ("template", "answers"),
    [
        (words.TEMPLATE, ["It is four.<|end|>", "Paris<|end|>"]),
        (EOS_ENDED, ["It is four.<|endoftext|>", "Paris<|endoftext|>"]),
        (SPACED, [" It is four.<|endoftext|>", " Paris<|endoftext|>"]),
        (HEADER_ALWAYS, ["It is four.<|end|>", "Paris<|end|>"]),
        (THINKING, ["It is four.<|end|>", "Paris<|end|>"]),
        (STRIPPING, ["It is four.<|end|>", "Paris<|end|>"]),
        (ENDLESS, ["It is four.\n", "Paris\n<|endoftext|>"]),
        (INDENTED, ["It is four.<|end|>", "Paris<|end|>"]),
        (LAST_QUESTION_FIRST, [" It is four.<|end|>", " Paris<|end|>"]),
        (TWO_ENDS, ["It is four.<|end|><|endoftext|>", "Paris<|end|><|endoftext|>"]),
        (MARKED, ["It is four.<|end|>", "Paris<|end|>"]),
        (masks.PLAIN_TEMPLATE, ["It is four.<|endoftext|>", "Paris<|endoftext|>"]),
    ],
)
def test_answers_and_their_ends_are_learned_and_nothing_else(template, answers):
    assert learned(template, TURNS) == answers


def test_the_system_message_is_not_learned():
    assert learned(words.TEMPLATE, WITH_SYSTEM) == ["It is four.<|end|>", "Paris<|end|>"]


def test_a_template_without_a_system_role_gets_it_with_the_first_question():
    used = encoder(NO_SYSTEM)
    text = used.show(used.encode(WITH_SYSTEM))
    assert text.startswith("<|user|>Be terse.\n\nWhat is the code?<|assistant|>⟦It is four.")


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        (WITH_SYSTEM, "<|user|>\nBe terse.\n\nWhat is the code?<|end|>\n<|assistant|>\n⟦It is four."),
        (
            [WITH_SYSTEM[0], *TURNS[1:]],
            "<|user|>\nBe terse.<|end|>\n<|assistant|>\n⟦It is four.<|end|>⟧\n<|user|>\nAnd",
        ),
        (TURNS[:2], "<|user|>\nWhat is the code?<|end|>"),
    ],
)
def test_a_template_that_leaves_the_system_out_in_silence_gets_it_with_the_first_question(messages, text):
    used = encoder(IGNORES_SYSTEM)
    assert used.show(used.encode(messages)).startswith(text)


def test_pad_may_be_the_token_that_ends_an_answer():
    tokenizer = words.tokenizer(EOS_ENDED)
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    row = encoder(EOS_ENDED).encode(TURNS)
    ends = [label for token, label in zip(row.ids, row.labels, strict=True) if token == tokenizer.eos_token_id]
    assert ends == [tokenizer.eos_token_id] * 2


def test_content_that_looks_like_a_prompt_is_learned_where_it_is_answered():
    echo = words.conversation("Say: <|assistant|> hello", "<|assistant|> hello")
    assert learned(words.TEMPLATE, echo) == ["<|assistant|> hello<|end|>"]


def test_answers_of_several_bytes_a_letter():
    assert learned(words.TEMPLATE, words.conversation("q", "Grüße 🙂 漢字")) == ["Grüße 🙂 漢字<|end|>"]


def test_the_same_answer_twice():
    twice = [*words.conversation("a", "same"), *words.conversation("b", "same")]
    assert learned(words.TEMPLATE, twice) == ["same<|end|>"] * 2


def test_all_is_all():
    row = encoder(loss="all").encode(TURNS)
    assert row.ids == row.labels


def test_a_text_is_learned_whole_and_ends():
    used = encoder()
    row = used.encode("It is four.")
    assert used.show(row) == "⟦It is four.<|endoftext|>⟧"


def test_long_rows_are_cut():
    row = encoder(max_length=16).encode(words.conversation("q", "word " * 100))
    assert len(row.ids) == 16


def test_a_row_whose_answer_is_cut_away_is_dropped():
    with pytest.raises(ValueError, match="nothing to learn within the first 16 tokens"):
        encoder(max_length=16).encode(words.conversation("word " * 100, "a"))


def test_rows_without_anything_to_learn_are_counted():
    dropped = Dropped()
    found = [Found("row 1", TURNS), Found("row 2", words.conversation("word " * 900, "a"))]
    assert len(encoder().encode_all(found, dropped)) == 1
    assert str(dropped) == "row 2: nothing to learn within the first 512 tokens"


def test_a_template_that_refuses_a_row_drops_it():
    refusing = "{{ raise_exception('roles must alternate') }}"
    dropped = Dropped()
    assert encoder(refusing).encode_all([Found("row 1", TURNS)], dropped) == []
    assert "row 1: the chat template refuses the conversation: roles must alternate" in str(dropped)


def test_a_tokenizer_without_offsets_is_refused():
    class Slow:
        is_fast = False
        chat_template = words.TEMPLATE

    with pytest.raises(ModelUnusable, match="tokenizer Slow gives no offsets"):
        Encoder(Slow(), max_length=16, loss="answers")


def test_rows_take_four_bytes_a_token():
    row = encoder().encode(TURNS)
    assert row.ids.itemsize == 4


THREE = [*TURNS, {"role": "user", "content": "Paris"}, {"role": "assistant", "content": "Yes."}]
LAST = "<think>\n\n</think>\n\nYes.<|end|>"


def test_answers_that_lose_their_thoughts_later_are_learned_as_they_stand():
    assert learned(THINKS_LAST, THREE) == ["It is four.<|end|>", "Paris<|end|>", LAST]


def test_answers_whose_words_the_template_changes_are_learned_as_they_stand():
    said = [TURNS[0], {"role": "assistant", "content": "<think>hm</think>It is four."}, *THREE[2:]]
    assert learned(THINKS_LAST, said) == ["It is four.<|end|>", "Paris<|end|>", LAST]


def test_calls_that_lose_their_thoughts_later_are_learned_and_what_tools_say_is_not():
    called = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "clock", "arguments": {}}}]}
    told = {"role": "tool", "content": "clock says noon"}
    call = '<call>{"name": "clock", "arguments": {}}</call><|end|>'
    found = learned(THINKS_LAST, [TURNS[0], called, told, called, told, TURNS[1], *TURNS[2:]])
    assert [part.strip() for part in found] == [
        call,
        call,
        "It is four.<|end|>",
        "<think>\n\n</think>\n\nParis<|end|>",
    ]


def test_a_thought_is_learned_with_its_answer():
    said = [TURNS[0], TURNS[1] | {"reasoning_content": "hm"}]
    assert learned(THINKS_LAST, said) == ["<think>\nhm\n</think>\n\nIt is four.<|end|>"]


@pytest.mark.parametrize("template", [words.TEMPLATE, EOS_ENDED, ENDLESS, THINKS_LAST, MARKED, masks.PLAIN_TEMPLATE])
@pytest.mark.parametrize("silent", [{"content": ""}, {"content": " \n"}, {"weight": 0}])
def test_nothing_of_an_answer_that_is_empty_or_of_weight_0_is_learned(template, silent):
    first, last = TURNS[1] | silent, TURNS[3] | silent
    (found,) = learned(template, [TURNS[0], first, *TURNS[2:]])
    assert "Paris" in found
    (found,) = learned(template, [*TURNS[:3], last])
    assert found.startswith("It is four.")
    row = encoder(template).encode([*TURNS[:3], last])
    assert row.labels[-1] == IGNORED
    text = encoder(template).show(row)
    assert not text.endswith("<|endoftext|><|endoftext|>")
    assert "weight" not in text


def test_a_weight_of_0_holds_where_all_else_is_learned():
    used = encoder(loss="all")
    text = used.show(used.encode([TURNS[0], TURNS[1] | {"weight": 0}, *TURNS[2:]]))
    assert text == (
        "⟦<|user|>\nWhat is the code?<|end|>\n⟧<|assistant|>\nIt is four.<|end|>\n<|user|>⟦\nAnd the city?<|end|>\n"
        "<|assistant|>\nParis<|end|>\n<|endoftext|>⟧"
    )


def test_a_call_after_a_question_that_reads_otherwise_once_it_is_answered():
    template = LAST_QUESTION_FIRST.replace("{{ m['content'] }}<|end|>", "{{ m['tool_calls'] | tojson }}<|end|>")
    call = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "clock", "arguments": {}}}]}
    (found,) = learned(template, [TURNS[0], call])
    assert found.endswith('"name": "clock", "arguments": {}}}]<|end|>')
    assert "What is the code?" not in found
