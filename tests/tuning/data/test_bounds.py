"""Templates that would take all time, all memory, or fill it: refused, whoever renders them."""

import resource
import signal

import pytest

from tests.tuning import words
from tuning.data import masks
from tuning.data.bounds import bounded
from tuning.data.template import Template
from tuning.data.tokenizer import Light, read
from tuning.errors import ConfigInvalid

ENDLESS = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
TOO_MUCH = {
    "words": ("{{ 'x' * 10000000000 }}", "more than 12[89] MiB of memory"),
    "padding": ("{{ '%10000000000d' % 1 }}", "more than 12[89] MiB of memory"),
    "growth": (
        "{% set n = namespace(s='x') %}{% for i in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}{{ n.s }}",
        "more than 12[89] MiB of memory",
    ),
    "text": ("{% for i in range(99999) %}{{ 'x' * 99 }}{% endfor %}", "is rendered to 9,899,901 characters"),
    "marked": (
        "{% generation %}{% for i in range(99999) %}{{ 'x' * 99 }}{% endfor %}{% endgeneration %}",
        "is rendered to 9,899,901 characters",
    ),
}


def encoder(template, folder, how):
    whole = words.tokenizer(template)
    if how == "without transformers":
        whole.save_pretrained(folder)
        whole = Light(read(folder))
    return masks.Encoder(whole, max_length=512, loss="answers")


@pytest.mark.parametrize("how", ["by transformers", "without transformers"])
@pytest.mark.parametrize("name", TOO_MUCH)
def test_what_a_template_makes_is_bounded(name, how, tmp_path):
    template, said = TOO_MUCH[name]
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with pytest.raises(ConfigInvalid, match=rf"^ModelConfig.chat_template .*{said}.*; give a template"):
        encoder(template, tmp_path, how)
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0, 0)


def test_a_row_that_wakes_it_is_no_row_to_leave_out():
    template = f"{words.TEMPLATE}{{% if messages[0]['content'] == 'now' %}}{TOO_MUCH['text'][0]}{{% endif %}}"
    made = masks.Encoder(words.tokenizer(template), max_length=512, loss="answers")
    made.encode(words.conversation("later", "yes"))
    with pytest.raises(ConfigInvalid, match=r"a conversation of \d+ characters is rendered to 9,8"):
        made.encode(words.conversation("now", "yes"))


def by_transformers(messages):
    words.tokenizer(ENDLESS).apply_chat_template(messages, tokenize=False)


def without_transformers(messages):
    Template(ENDLESS).render(messages, None, prompt=False)


@pytest.mark.parametrize("render", [by_transformers, without_transformers])
def test_what_has_no_end_is_ended(render):
    said = r"a conversation of 7 characters takes more than 0.1 s of the processor"
    with pytest.raises(ConfigInvalid, match=said), bounded(7, seconds=0.1):
        render(words.conversation("q", "a"))
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0, 0)


def test_a_long_conversation_is_rendered():
    said = words.conversation("a long question " * 80_000, "a short answer")
    made = masks.Encoder(words.tokenizer(), max_length=2 << 20, loss="answers")
    assert made.show(made.encode(said)).endswith("⟦a short answer<|end|>⟧\n<|endoftext|>")


@pytest.mark.parametrize(
    ("text", "said"),
    [("{{ 3 ** 1000000000 }}", "powers of over"), ("{{ 1.5 | round(1000000000, 'ceil') }}", "round to more than")],
)
def test_numbers_that_take_hours_are_refused(text, said):
    with pytest.raises(Exception, match=said):
        Template(text).render([], None, prompt=False)
    small = Template("{{ 2 ** 10 }} {{ 1.25 | round(1, 'floor') }} {{ 1.5 | round }}")
    assert small.render([], None, prompt=False) == "1024 1.2 2.0"


@pytest.mark.parametrize(
    "text", ["{{ " + "(" * 9999 + "1" + ")" * 9999 + " }}", "{% for i in [1] %}" * 30 + "{% endfor %}" * 30]
)
def test_what_python_cannot_compile_is_told(text):
    with pytest.raises(ValueError, match="the chat template cannot be compiled: "):
        Template(text)
