"""KAITO's training_config.yaml, typed: the user's half of a `TuningConfig`. Knows no torch: the operator parses it too.

Every map that KAITO accepts is accepted here. What is unknown is an error with a suggestion, what is known and decides
nothing here is a warning, and what the user leaves out has a default whose reason stands beside it.
"""

import codecs
import difflib
import posixpath
import reprlib
from collections.abc import Iterable, Mapping
from typing import Any

import pydantic

from artifacts import plain_yaml
from tuning import training_keys
from tuning.training_sections import (
    DataCollator,
    DatasetConfig,
    LoraConfig,
    Method,
    ModelConfig,
    QuantizationConfig,
    Section,
    TrainingArguments,
    TrainingConfig,
)

__all__ = [
    "SECTIONS",
    "DataCollator",
    "DatasetConfig",
    "LoraConfig",
    "Method",
    "ModelConfig",
    "QuantizationConfig",
    "Section",
    "TrainingArguments",
    "TrainingConfig",
    "parse",
]

SECTIONS: Mapping[str, tuple[str, type[Section]]] = {
    "ModelConfig": ("model", ModelConfig),
    "QuantizationConfig": ("quantization", QuantizationConfig),
    "LoraConfig": ("lora", LoraConfig),
    "TrainingArguments": ("arguments", TrainingArguments),
    "DataCollator": ("collator", DataCollator),
    "DatasetConfig": ("dataset", DatasetConfig),
}
"""The map's sections: our field, its type."""


def parse(text: str, method: Method) -> TrainingConfig:
    """The config in a training_config.yaml's text; ValueError names each bad key, the value seen and the way out."""
    sections = _sections(text)
    problems: list[str] = []
    warnings: list[str] = []
    fields: dict[str, Section] = {}
    for name, written in sections.items():
        if name in training_keys.SECTIONS_IDLE:
            warnings.append(f"{name}: ignored, {training_keys.SECTIONS_IDLE[name]}")
            continue
        field, kind = SECTIONS[name]
        known, unknown = _sort_keys(name, kind, written, warnings)
        problems += unknown
        try:
            fields[field] = kind.model_validate(known)
        except pydantic.ValidationError as error:
            problems += _explain(name, error)
    if not problems:
        config = _with_held_out(TrainingConfig.model_validate(fields | {"warnings": tuple(warnings)}))
        problems += _cross_checks(config, method, sections.get("TrainingArguments", {}).get("output_dir"))
    if problems:
        shown = "; ".join(problems[:5]) + (f"; and {len(problems) - 5} more" if len(problems) > 5 else "")
        raise ValueError(f"training_config.yaml: {shown}")
    return _with_template(config)


def _sections(text: str) -> dict[str, dict[str, Any]]:
    try:
        document = plain_yaml.config(text)
    except ValueError as error:
        raise ValueError(f"training_config.yaml: {error}") from error
    if not isinstance(document, dict) or "training_config" not in document:
        raise ValueError(
            f"training_config.yaml: the top key training_config is missing, found {_shown(document)}; "
            f"put the sections {', '.join(SECTIONS)} below it"
        )
    sections = document["training_config"] or {}
    if not isinstance(sections, dict):
        raise ValueError(  # noqa: TRY004 -- one kind of error for all that a user can write
            f"training_config.yaml: training_config is {_shown(sections)}, but it must be a map of sections"
        )
    for name, content in sections.items():
        if name not in SECTIONS and name not in training_keys.SECTIONS_IDLE:
            raise ValueError(f"training_config.yaml: {name}: unrecognized section; {_meant(name, SECTIONS)}")
        if content is not None and not isinstance(content, dict):
            raise ValueError(f"training_config.yaml: {name} is {_shown(content)}, but a section is a map of keys")
    return {name: content or {} for name, content in sections.items()}


def _sort_keys(
    section: str, kind: type[Section], written: Mapping[Any, Any], warnings: list[str]
) -> tuple[dict[str, Any], list[str]]:
    """What decides something, under its present name, and what nobody knows; the rest becomes warnings."""
    known, unknown = {}, []
    idle, renamed = training_keys.IDLE[section], training_keys.RENAMED.get(section, {})
    for key, value in written.items():
        name = renamed.get(key, key)
        if value is None or key == "output_dir":
            continue  # null is the same as silence
        if name != key and written.get(name) is not None:
            unknown.append(f"{section}.{key}: is another name of {name}, which is there too; keep one of them")
        elif name != key:
            warnings.append(f"{section}.{key}: is called {name} here, and is honoured")
            known[name] = value
        elif name in kind.model_fields:
            known[name] = value
            if name == "report_to" and (left_out := training_keys.idle_trackers(value)):
                warnings.append(
                    f"{section}.{key}: {left_out} are told nothing; take {', '.join(training_keys.TRACKERS)}"
                )
        elif name not in idle:
            unknown.append(f"{section}.{key}: unknown key with value {_shown(value)}; {_meant_key(key, section)}")
        elif value not in idle[name].harmless:
            warnings.append(f"{section}.{key}: {_shown(value)} has no effect, {idle[name].reason}")
    return known, unknown


def _explain(section: str, error: pydantic.ValidationError) -> list[str]:
    return [
        f"{'.'.join([section, *map(str, problem['loc'])])}: {_shown(problem['input'])} cannot be used; {problem['msg']}"
        for problem in error.errors(include_url=False)
        if problem["type"] != "default_factory_not_called"  # the key it hangs on is reported itself
    ]


def _cross_checks(config: TrainingConfig, method: Method, output_dir: object) -> Iterable[str]:
    quantization = config.quantization
    if quantization.load_in_4bit and quantization.load_in_8bit:
        yield "QuantizationConfig.load_in_4bit and load_in_8bit are both true; keep one of them"
    elif method == "lora" and (quantization.load_in_4bit or quantization.load_in_8bit):
        yield "QuantizationConfig: load_in_4bit or load_in_8bit is true with method lora; set tuning.method to qlora"
    elif method == "qlora" and quantization.load_in_4bit is False and not quantization.load_in_8bit:
        yield "QuantizationConfig.load_in_4bit is false, but the method is qlora; set it to true"
    yield from _evaluation_checks(config.arguments, config.dataset.train_test_split)
    yield from _schedule_checks(config.arguments.lr_scheduler_type, config.arguments.lr_scheduler_kwargs)
    if output_dir is not None and not _below_mnt(output_dir):
        yield (
            f"TrainingArguments.output_dir: {_shown(output_dir)} is not a directory below /mnt; "
            "leave it out or write /mnt/results"
        )


def _evaluation_checks(arguments: TrainingArguments, trained_on: float) -> Iterable[str]:
    if arguments.eval_strategy == "no":
        for key in ("load_best_model_at_end", "early_stopping_patience"):
            if getattr(arguments, key):
                yield f"TrainingArguments.{key} needs evaluations; set eval_strategy to steps or epoch"
    elif trained_on == 1:
        yield (
            f"TrainingArguments.eval_strategy is {arguments.eval_strategy}, but DatasetConfig.train_test_split is 1, so"
            " that no rows are held out; lower it, or leave it out"
        )
    if arguments.eval_steps > 1 and arguments.eval_steps % 1:
        yield f"TrainingArguments.eval_steps: {arguments.eval_steps} is no number of steps; write a whole one"


def _schedule_checks(kind: str, said: Mapping[str, float | str]) -> Iterable[str]:
    """What transformers would say on the node, with a GPU that is paid for."""
    field = "TrainingArguments.lr_scheduler_kwargs"
    known, needed = training_keys.SCHEDULES.get(kind, (frozenset[str](), frozenset[str]()))
    for key, value in said.items():
        texts = training_keys.SCHEDULE_TEXTS.get(key)
        if key not in known:
            yield f"{field}.{key}: {_shown(value)} is nothing that {kind} knows; {_meant(key, sorted(known))}"
        elif texts and value not in texts:
            yield f"{field}.{key}: {_shown(value)} cannot be used; take {', '.join(texts)}"
        elif isinstance(value, str) and not texts:
            yield f"{field}.{key}: {_shown(value)} is no number; write one"
    if needed and not needed & said.keys():
        yield f"{field}: {kind} needs {' or '.join(sorted(needed))}; set it"


def _with_held_out(config: TrainingConfig) -> TrainingConfig:
    """With rows to evaluate on, where the user asks for evaluations and does not say on how many."""
    if config.arguments.eval_strategy == "no" or "train_test_split" in config.dataset.model_fields_set:
        return config
    return config.model_copy(update={"dataset": config.dataset.model_copy(update={"train_test_split": 0.8})})


def _below_mnt(path: object) -> bool:
    if not isinstance(path, str):
        return False
    whole = posixpath.normpath(path if f"{path}/".startswith("/mnt/") else posixpath.join("/mnt", path.lstrip("/")))
    return whole.startswith("/mnt/")


def _with_template(config: TrainingConfig) -> TrainingConfig:
    """A template's text, with the escapes that KAITO resolves; a path into KAITO's image means the model's own."""
    template = config.model.chat_template
    if template is None:
        return config
    warnings = config.warnings
    if any(mark in template for mark in "{}\n"):
        text = codecs.decode(template, "unicode_escape") if template.isascii() and "\\" in template else template
    elif template.startswith("/workspace/chat_templates/"):
        text = None
        warnings += (f"ModelConfig.chat_template: {template} is not in this image, the model's own template is used",)
    else:
        raise ValueError(
            f"training_config.yaml: ModelConfig.chat_template: {_shown(template)} is a path, but there is no such file "
            "where training runs; write the template itself"
        )
    model = config.model.model_copy(update={"chat_template": text})
    return config.model_copy(update={"model": model, "warnings": warnings})


def _meant_key(key: object, section: str) -> str:
    own = [*SECTIONS[section][1].model_fields, *training_keys.IDLE[section]]
    if difflib.get_close_matches(str(key), own, 1, 0.75):
        return _meant(key, own)
    for other, (_, kind) in SECTIONS.items():
        if key in kind.model_fields:
            return f"it belongs into {other}"
    return _meant(key, own)


def _meant(name: object, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(str(name), list(known), 1)
    return f"did you mean {close[0]}?" if close else "remove it"


def _shown(value: object) -> str:
    return reprlib.repr(value)[:200]
