"""The tokenizer of a check, which has no transformers, beside transformers' own: the same ids and labels."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from tests.tuning import words
from tests.tuning.conftest import ROOT
from tests.tuning.data import test_masks
from tests.tuning.data.templates import CALLED, CONVERSATIONS, MARK, TOOL, tokenizer
from tuning.data import masks
from tuning.data.template import Template
from tuning.data.tokenizer import Light, Unreadable, read

TRL = Path(importlib.util.find_spec("trl").submodule_search_locations[0], "chat_templates")
FAMILIES = sorted(path.stem for path in TRL.glob("*.jinja"))
OURS = {name: text for name, text in vars(test_masks).items() if name.isupper() and "{%" in str(text)}
SAID = [
    *([{"role": role, "content": text} for role, text in said] for said in CONVERSATIONS.values()),
    test_masks.WITH_SYSTEM,
    "a plain text",
]


def learned(encoder, example, tools=()):
    try:
        row = encoder.encode(example, tools)
    except ValueError as error:
        return str(error)
    return list(row.ids), list(row.labels), encoder.show(row)


def both(saved, folder, **options):
    """An encoder by transformers and one without, of the tokenizer that was saved."""
    saved.save_pretrained(folder)
    options = {"max_length": 1 << 20, "loss": "answers", **options}
    return masks.Encoder(AutoTokenizer.from_pretrained(folder), **options), masks.Encoder(
        Light(read(folder)), **options
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_both_learn_the_same_by_the_templates_of_the_world(family, tmp_path):
    text = (TRL / f"{family}.jinja").read_text()
    theirs, ours = both(tokenizer(text, sorted(set(MARK.findall(text))), "<eos>"), tmp_path)
    found = [learned(theirs, example) for example in SAID]
    assert [learned(ours, example) for example in SAID] == found
    assert any(isinstance(each, tuple) for each in found)
    assert learned(ours, CALLED, (TOOL,)) == learned(theirs, CALLED, (TOOL,))


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("loss", ["answers", "all"])
def test_both_learn_the_same_by_odd_templates(name, loss, tmp_path):
    theirs, ours = both(words.tokenizer(OURS[name]), tmp_path, loss=loss)
    for example in SAID:
        assert learned(ours, example) == learned(theirs, example)


def edited(folder, **changes):
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"add_bos_token": True, "add_eos_token": True, "bos_token": "<|system|>"},  # tokenizer.json decides that
        {"eos_token": {"content": "<|end|>", "__type": "AddedToken"}},
        {"unk_token": "<a new one>"},
        {"extra_special_tokens": ["<another>", "<|end|>"]},
        {"extra_special_tokens": {"image_token": "<image>"}},
        {"eos_token": None},
    ],
)
def test_both_read_the_settings_alike(changes, tmp_path):
    words.tokenizer().save_pretrained(tmp_path)
    edited(tmp_path, **changes)
    (tmp_path / "chat_template.jinja").write_text(words.TEMPLATE + "{{ image_token }}")
    theirs, ours = AutoTokenizer.from_pretrained(tmp_path), Light(read(tmp_path))
    assert ours.special_tokens_map == {
        key: text for key, text in theirs.special_tokens_map.items() if "extra" not in key
    }
    assert set(ours.all_special_ids) == set(theirs.all_special_ids)
    for text in ("plain words <image> <a new one>", "<another> <|end|>\n"):
        assert ours(text)["input_ids"] == theirs(text)["input_ids"]
    encoders = [masks.Encoder(each, max_length=512, loss="answers") for each in (theirs, ours)]
    for example in SAID:
        assert learned(encoders[1], example) == learned(encoders[0], example)


def test_a_list_of_templates_has_one_for_tools(tmp_path):
    words.tokenizer().save_pretrained(tmp_path)
    (tmp_path / "chat_template.jinja").unlink()
    named = [{"name": "default", "template": words.TEMPLATE}, {"name": "tool_use", "template": "T" + words.TEMPLATE}]
    edited(tmp_path, chat_template=named)
    theirs, ours = AutoTokenizer.from_pretrained(tmp_path), Light(read(tmp_path))
    said = words.conversation("q", "a")
    for tools in (None, [TOOL]):
        texts = [each.apply_chat_template(said, tools=tools, tokenize=False) for each in (theirs, ours)]
        assert texts[0] == texts[1]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", "{}"),
        ("tokenizer.json", "no JSON"),
        ("tokenizer_config.json", "[]"),
        ("tokenizer.json", None),
    ],
)
def test_what_cannot_be_read_is_named(name, content, tmp_path):
    words.tokenizer().save_pretrained(tmp_path)
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(Unreadable, match=name):
        Light(read(tmp_path))


@pytest.mark.parametrize(
    "text",
    [
        "{{ messages.__class__.__mro__ }}",
        "{{ ''.__class__.__subclasses__() }}",
        "{% set n = namespace(_x=1) %}",
        "{% set _ = messages.append(1) %}",
        "{{ dict.__init__.__globals__ }}",
    ],
)
def test_a_template_stays_in_its_sandbox(text):
    template = Template(text)
    with pytest.raises(Exception, match=r"unsafe|unsupported|may not|not allowed|immutable|has no attribute"):
        template.render([{"role": "user", "content": "x"}], None, prompt=False)


def test_helpers_are_those_that_templates_know():
    text = "{{ {'ä': [1]} | tojson }}{{ strftime_now('%Y') }}{% for m in messages %}{% break %}{% endfor %}"
    assert Template(text).render([{"role": "user"}], None, prompt=False).startswith('{"ä": [1]}2')
    with pytest.raises(Exception, match="as I say"):
        Template("{{ raise_exception('as I say') }}").render([], None, prompt=False)
    with pytest.raises(ValueError, match="cannot be compiled"):
        Template("{% if %}")


def test_no_transformers_is_imported(tmp_path):
    words.tokenizer().save_pretrained(tmp_path)
    heavy = ["torch", "transformers", "huggingface_hub", "numpy", "peft", "datasets"]
    code = f"""
import sys
for name in {heavy}:
    sys.modules[name] = None
from pathlib import Path
from tuning.data import masks, tokenizer
encoder = masks.Encoder(tokenizer.Light(tokenizer.read(Path({str(tmp_path)!r}))), max_length=99, loss="answers")
print(encoder.show(encoder.encode([dict(role="user", content="q"), dict(role="assistant", content="a")])))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "⟦a<|end|>" in done.stdout, done.stderr
