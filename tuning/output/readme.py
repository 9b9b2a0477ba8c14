"""The adapter's card as Markdown, with the front matter that Hugging Face reads: pure text, out of the summary."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

FILE = "README.md"
PICTURE = "loss.svg"
_SAMPLE_CHARACTERS = 2000
_FENCE = re.compile(r"`{3,}")


def text(card: Mapping[str, Any], samples: Sequence[str] = ()) -> str:
    """The card; `samples` have what is learned from between ⟦ and ⟧."""
    base = card["base_model"]
    parts = [
        _front(card),
        f"# {card['method']} adapter of {_code(base['id'])}\n",
        f"![loss by optimizer step]({PICTURE})\n",
        _table(("", ""), _facts(card)),
        "## Data\n",
        _data(card),
        "## Settings\n",
        _table(("key", "value"), _settings(card["settings"])),
        *(_samples(samples) if samples else []),
        "## Use\n",
        _use(base),
    ]
    return "\n".join(parts)


def _front(card: Mapping[str, Any]) -> str:
    """YAML; JSON strings are YAML strings."""
    tags = [card["method"], *(["lora"] if card["method"] != "lora" else []), "kaito", "kaito-hera"]
    known = {
        "base_model": card["base_model"]["id"],
        "base_model_relation": "adapter",
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "tags": tags,
    }
    return "\n".join(["---", *(f"{key}: {json.dumps(value)}" for key, value in known.items()), "---", ""])


def _facts(card: Mapping[str, Any]) -> list[tuple[str, str]]:
    base, eval_loss = card["base_model"], card.get("eval_loss")
    resumed = ", ".join(str(step) for step in card.get("resumed_from") or [])
    early = ", ended early" if card.get("ended_early") else ""
    found = {
        "base model": f"{_code(base['id'])} @ {_code(base.get('revision') or '-')}",
        "preset": _code(card["preset"]),
        "steps": str(card["steps"]) + (f", resumed from {resumed}" if resumed else "") + early,
        "loss": f"{card['loss']:.4f}, over the last steps",
        "loss on rows held out": f"{eval_loss:.4f}" if eval_loss is not None else "",
        "tokens": _count(card.get("tokens"))
        + (f", {_count(card['supervised_tokens'])} of them learned from" if card.get("supervised_tokens") else ""),
        "trained for": _span(card["seconds"]) if card.get("seconds") else "",
        "on": ", ".join(part for part in (card.get("device"), (card.get("computed") or {}).get("precision")) if part),
        "GPU memory": f"{card['gpu_memory_gib']:.1f} GiB at most" if card.get("gpu_memory_gib") else "",
        "versions": ", ".join(f"{name} {version}" for name, version in card["versions"].items()),
    }
    return [(name, value) for name, value in found.items() if value]


def _data(card: Mapping[str, Any]) -> str:
    files = [(_code(file["name"]), _count(file["bytes"]), _code(f"sha256:{file['sha256']}")) for file in card["data"]]
    held, dropped = card.get("rows_held_out") or 0, card.get("rows_dropped") or 0
    rows = f"{_count(card['rows'])} rows"
    rows += f", {_count(held)} more held out" if held else ""
    rows += f", {_count(dropped)} left out because they could not be used" if dropped else ""
    return f"{rows}.\n\n{_table(('file', 'bytes', 'digest'), files)}"


def _settings(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What was set, section by section; what is empty is as the libraries have it."""
    found = []
    for section, values in settings.items():
        for key, value in values.items() if isinstance(values, Mapping) else [("", values)]:
            if value not in (None, "", [], {}, ()):
                found.append((f"{section}.{key}".rstrip("."), _code(json.dumps(value, default=str))))
    return found


def _samples(samples: Sequence[str]) -> list[str]:
    """As the model reads them; the fence is longer than any in the text."""
    parts = ["## Rows as the model reads them\n", "It learns from what is between ⟦ and ⟧.\n"]
    for sample in samples:
        shown = sample if len(sample) <= _SAMPLE_CHARACTERS else f"{sample[:_SAMPLE_CHARACTERS]} ..."
        fence = "`" * max([3, *(len(found) + 1 for found in _FENCE.findall(shown))])
        parts.append(f"{fence}text\n{shown}\n{fence}\n")
    return parts


def _use(base: Mapping[str, Any]) -> str:
    return f"""```python
from peft import PeftModel
from transformers import AutoModelForCausalLM

base = AutoModelForCausalLM.from_pretrained({json.dumps(base["id"])}, revision={json.dumps(base.get("revision"))})
model = PeftModel.from_pretrained(base, "data")  # this folder
```

`chat_template.jinja` is the template that the rows were written with. What is told here is in `training_summary.json`
too, each step in `metrics.jsonl`.
"""


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _code(words: Any) -> str:
    """Somebody's words, which may hold anything, as one line that Markdown leaves alone."""
    line = " ".join(str(words).split()).replace("`", "'")
    return f"`{line or '-'}`"


def _count(number: int | None) -> str:
    return f"{number:,}" if number is not None else ""


def _span(seconds: float) -> str:
    minutes, hours = int(seconds) // 60, int(seconds) // 3600
    if hours:
        return f"{hours} h {minutes % 60} min"
    return f"{minutes} min {int(seconds) % 60} s" if minutes else f"{seconds:.0f} s"
