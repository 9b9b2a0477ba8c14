"""Our masks beside those of trl, whose authors marked by hand what the assistant says in the templates of many models.

Both see the same text: the family's own template where trl's copy renders the same, else trl's copy without its marks.
"""

import importlib.util
import re
from pathlib import Path

import pytest

from tests.tuning.data.templates import CALLED, CONVERSATIONS, MARK, TOOL, tokenizer
from tuning.data.masks import IGNORED, Encoder
from tuning.data.shapes import example
from tuning.training_config import DatasetConfig

FOLDER = Path(importlib.util.find_spec("trl").submodule_search_locations[0], "chat_templates")
FAMILIES = sorted(path.stem.removesuffix("_training") for path in FOLDER.glob("*_training.jinja"))

GENERATION = re.compile(r"(\{%[-+]?\s*)(end)?generation\b")


def plain(template):
    """The template without its marks."""
    return GENERATION.sub(lambda found: found[1] + ("endif" if found[2] else "if true"), template)


class Oracle:
    """One conversation as trl has it and as we have it, over the same text."""

    def __init__(self, family, said):
        own, marked = (FOLDER / f"{family}{kind}.jinja" for kind in ("", "_training"))
        marked = marked.read_text()
        own = own.read_text() if own.is_file() else ""
        marks = sorted(set(MARK.findall(own + marked)))
        for eos in ("<eos>", None):  # the token that trl learns last is how this model ends
            self.used = tokenizer(marked, marks, eos or self.ends)
            self.messages = self.as_template(said)
            self.ids, self.theirs = self.by_trl()
            self.ends = self.used.decode([i for i, on in zip(self.ids, self.theirs, strict=True) if on]).strip()
            self.ends = (MARK.findall(self.ends) or ["<eos>"])[-1]
        self.used.chat_template = own if own and self.rendered(own) == self.rendered(plain(marked)) else plain(marked)
        encoder = Encoder(self.used, max_length=1 << 20, loss="answers")
        row = encoder.encode([{"role": role, "content": text} for role, text in said])
        self.same_text = list(row.ids) == list(self.ids)
        self.ours = [label != IGNORED for label in row.labels]

    def as_template(self, said):
        """Templates of models that see pictures know contents of parts alone."""
        simple = [{"role": role, "content": text} for role, text in said]
        try:
            rendered = self.rendered(self.used.chat_template, simple)
            if all(text.strip() in rendered for _, text in said):
                return simple
        except Exception as error:
            if "has no attribute 'text'" not in str(error):
                raise
        return [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in said]

    def by_trl(self, **more):
        found = self.used.apply_chat_template(
            self.messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True, **more
        )
        return found["input_ids"], [bool(on) for on in found["assistant_masks"]]

    def rendered(self, template, messages=None):
        return self.used.apply_chat_template(messages or self.messages, chat_template=template, tokenize=False)

    def prompt(self):
        return self.used.apply_chat_template(self.messages[:-1], tokenize=False, add_generation_prompt=True)

    def runs(self, mask):
        """Where what is learned starts and ends."""
        edges = [at for at in range(len(mask) + 1) if (at < len(mask) and mask[at]) != (at > 0 and mask[at - 1])]
        return list(zip(edges[::2], edges[1::2], strict=True))

    def text(self, first, last):
        return self.used.decode(self.ids[first:last])


REFUSED = {("gemma", "system")}
"""The template refuses the role: trl drops such a row, we put the words into the question."""
PAIRS = [(family, name) for family in FAMILIES for name in CONVERSATIONS if (family, name) not in REFUSED]


@pytest.fixture(params=PAIRS, ids="-".join)
def oracle(request):
    family, name = request.param
    return Oracle(family, CONVERSATIONS[name])


def test_what_is_learned_is_what_trl_learns(oracle):
    """But for the header, which the generation prompt gives anyway, and for what follows the token that ends it."""
    assert oracle.same_text
    assert not [at for at, (our, their) in enumerate(zip(oracle.ours, oracle.theirs, strict=True)) if our and not their]
    ours, theirs = oracle.runs(oracle.ours), oracle.runs(oracle.theirs)
    assert len(ours) == len(theirs) > 0
    specials = set(oracle.used.all_special_ids)
    for (first, last), (start, end) in zip(ours, theirs, strict=True):
        assert oracle.ids[last - 1] in specials
        assert oracle.text(start, first).strip() in oracle.prompt()
        left = [token for token in oracle.ids[last:end] if token not in specials]
        assert not oracle.used.decode(left).strip()


REFUSES_CALLS = {"cohere", "cohere2", "gemma", "gemma3", "idefics3", "llava_next", "smolvlm"}
LEAVES_CALLS_OUT = {"lfm2", "llama3", "phi3", "phi3_5", "qwen2_5_vl", "deepseek_r1_distill"}
OWN_WAY = {
    "diffusion_gemma",  # asks for no answer after a tool's, so that we learn that answer's header too
    "lfm2_v2",  # trl's copy leaves calls out, the model's own has them
}


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - REFUSES_CALLS - LEAVES_CALLS_OUT - OWN_WAY))
def test_calls_of_tools_are_learned_as_by_trl(family):
    oracle = Oracle(family, CONVERSATIONS["one"])
    oracle.messages = example({"messages": CALLED, "tools": [TOOL]}, DatasetConfig())
    oracle.used.chat_template = (FOLDER / f"{family}_training.jinja").read_text()
    ids, theirs = oracle.by_trl(tools=[TOOL])
    oracle.used.chat_template = plain(oracle.used.chat_template)
    row = Encoder(oracle.used, max_length=1 << 20, loss="answers").encode(oracle.messages, [TOOL])
    ours = [label != IGNORED for label in row.labels]
    assert list(row.ids) == list(ids)
    assert not [at for at, (our, their) in enumerate(zip(ours, theirs, strict=True)) if our and not their]
    call, answer = oracle.runs(ours)
    assert "clock" in oracle.used.decode(row.ids[slice(*call)])
    assert "It is twelve." in oracle.used.decode(row.ids[slice(*answer)])


@pytest.mark.parametrize("family", sorted(LEAVES_CALLS_OUT))
def test_a_call_that_a_template_leaves_out_is_no_row(family):
    oracle = Oracle(family, CONVERSATIONS["one"])
    with pytest.raises(ValueError, match="leaves out what the assistant calls"):
        Encoder(oracle.used, max_length=1 << 20, loss="answers").encode(
            example({"messages": CALLED}, DatasetConfig()), [TOOL]
        )


OWN = sorted(path.stem for path in FOLDER.glob("*.jinja") if not path.stem.endswith("_training"))


@pytest.mark.parametrize("family", OWN)
def test_every_answer_is_learned_by_the_familys_own_template(family):
    """Also where it renders the last turn in another way than those before, and trl's copy does not."""
    template = (FOLDER / f"{family}.jinja").read_text()
    said = [("user", "Red?"), ("assistant", "Crimson."), ("user", "Blue?"), ("assistant", "Azure."), ("user", "Green?")]
    messages = [{"role": role, "content": text} for role, text in [*said, ("assistant", "Emerald.")]]
    used = Encoder(
        tokenizer(template, sorted(set(MARK.findall(template))), "<eos>"), max_length=1 << 20, loss="answers"
    )
    learned = "".join(part.split("⟧")[0] for part in used.show(used.encode(messages)).split("⟦")[1:])
    assert all(learned.count(answer) == 1 for answer in ("Crimson.", "Azure.", "Emerald."))
    assert not any(question in learned for question in ("Red?", "Blue?", "Green?"))
