"""KAITO's training_config.yaml, typed: the user's half of a `TuningConfig`. Knows no torch: the operator parses it too.

Every map that KAITO accepts is accepted here. What is unknown is an error with a suggestion, what is known and decides
nothing here is a warning, and what the user leaves out has a default whose reason stands beside it.
"""

import codecs
import difflib
import posixpath
import reprlib
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

import pydantic

from artifacts import plain_yaml
from tuning import training_keys

Method = Literal["lora", "qlora"]
Share = Annotated[float, pydantic.Field(ge=0, lt=1)]


class Section(pydantic.BaseModel):
    """One section of the map: frozen, and strict about its keys."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ModelConfig(Section):
    """How the base model is loaded."""

    torch_dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """Of what is not quantised; `auto` is bfloat16 where the device has it, for its range, else float16 on a GPU."""
    chat_template: str | None = None
    """A Jinja template in place of the model's own."""


class QuantizationConfig(Section):
    """How the frozen weights are stored."""

    load_in_4bit: pydantic.StrictBool | None = None
    """None follows the method: qlora means 4 bits."""
    load_in_8bit: pydantic.StrictBool | None = None
    bnb_4bit_quant_type: Literal["nf4", "fp4"] = "nf4"
    """nf4 suits weights, which are normally distributed (QLoRA paper)."""
    bnb_4bit_compute_dtype: Literal["bfloat16", "float16", "float32"] | None = None
    """None follows ModelConfig.torch_dtype."""
    bnb_4bit_use_double_quant: bool = True
    """Saves 0.37 bits per weight at no measurable loss."""
    llm_int8_threshold: float = 6.0
    """bitsandbytes' own default for outliers."""
    llm_int8_skip_modules: tuple[str, ...] = ()


class LoraConfig(Section):
    """The adapter's shape."""

    r: Annotated[int, pydantic.Field(ge=1, le=512)] = 8
    """KAITO's rank; on all linear layers it is rarely what limits a small data set."""
    lora_alpha: int = pydantic.Field(ge=1, default_factory=lambda known: 2 * int(known["r"]))
    """Twice the rank, so that the learning rate keeps its meaning when the rank changes."""
    lora_dropout: Share = 0.0
    """KAITO's; three epochs of answers seldom overfit."""
    target_modules: tuple[str, ...] = ()
    """Suffixes of layer names; empty means all linear layers but the head, which closes the gap to full tuning."""
    exclude_modules: tuple[str, ...] = ()
    init_lora_weights: Literal[True, False, "gaussian"] = True
    """Only starts that leave the base model as it is: an adapter of pissa, olora or corda needs a changed one."""
    use_rslora: bool = False
    rank_pattern: dict[str, int] = {}
    alpha_pattern: dict[str, int] = {}
    layers_to_transform: tuple[int, ...] = ()
    layers_pattern: tuple[str, ...] = ()

    @pydantic.field_validator("target_modules", "exclude_modules", "layers_pattern", mode="before")
    @classmethod
    def _names(cls, value: object) -> object:
        """One name or several in one string, as KAITO's command line took them; `all-linear` is what empty means."""
        names = value.replace(",", " ").split() if isinstance(value, str) else value
        return () if names in (["all-linear"], ("all-linear",)) else names


class TrainingArguments(Section):
    """The optimisation."""

    num_train_epochs: Annotated[float, pydantic.Field(gt=0, le=1000)] = 3.0
    """The library's and KAITO's."""
    max_steps: Annotated[int, pydantic.Field(ge=-1)] = -1
    """Above zero it overrides the epochs."""
    per_device_train_batch_size: Annotated[int, pydantic.Field(ge=1, le=1024)] = 2
    """Rows at once: small, since 2,048 tokens of each must fit beside the weights."""
    per_device_eval_batch_size: Annotated[int, pydantic.Field(ge=1, le=1024)] = 2
    gradient_accumulation_steps: int = pydantic.Field(
        ge=1, default_factory=lambda known: max(1, 8 // int(known["per_device_train_batch_size"]))
    )
    """Eight rows a step: fewer make this learning rate noisy, more leave a small data set with few steps."""
    learning_rate: Annotated[float, pydantic.Field(gt=0, le=1)] = 2e-4
    """QLoRA's; the library's 2e-5 to 5e-5 is for full tuning and barely moves an adapter."""
    lr_scheduler_type: Literal[
        "linear",
        "cosine",
        "cosine_with_restarts",
        "cosine_with_min_lr",
        "polynomial",
        "constant",
        "constant_with_warmup",
        "inverse_sqrt",
        "warmup_stable_decay",
    ] = "cosine"
    """Ends softly without another number to choose."""
    lr_scheduler_kwargs: dict[str, float | int | str] = {}
    warmup_ratio: Share = 0.03
    """Adam's moments are empty at first: QLoRA's share."""
    warmup_steps: Annotated[float, pydantic.Field(ge=0)] = 0
    """Above zero it overrides the ratio; below one it is a ratio."""
    optim: Literal[
        "adamw_torch",
        "adamw_torch_fused",
        "adamw_8bit",
        "adamw_bnb_8bit",
        "paged_adamw_8bit",
        "paged_adamw_32bit",
        "sgd",
    ] = "adamw_torch_fused"
    """One kernel for all parameters; the state of an adapter is too small to need 8 bits."""
    weight_decay: Annotated[float, pydantic.Field(ge=0)] = 0.0
    adam_beta1: Share = 0.9
    adam_beta2: Share = 0.999
    adam_epsilon: Annotated[float, pydantic.Field(gt=0)] = 1e-8
    max_grad_norm: Annotated[float, pydantic.Field(ge=0)] = 1.0
    """The library's: one strange row does not throw the adapter."""
    label_smoothing_factor: Share = 0.0
    neftune_noise_alpha: Annotated[float, pydantic.Field(gt=0)] | None = None
    max_length: Annotated[int, pydantic.Field(ge=16, le=1_000_000)] = 2048
    """Tokens of a row; longer ones are cut. Holds every row of dolly-15k; 1,024 cuts two in a hundred."""
    activation_checkpointing: bool | None = None
    """None decides by the estimate: on where not all activations fit the GPU, off for a CPU."""
    eval_strategy: Literal["no", "steps", "epoch"] = "no"
    """When the rows held out are looked at beside the end: training stands still meanwhile."""
    eval_steps: Annotated[float, pydantic.Field(gt=0)] = 0.1
    """A tenth of all steps, since the library's 10 or 500 fit hardly any run; below one it is a share."""
    load_best_model_at_end: bool = False
    """Whether the adapter is the one with the lowest loss on the rows held out, not the last."""
    metric_for_best_model: Literal["loss", "eval_loss"] = "loss"
    """No other is measured."""
    greater_is_better: Literal[False] = False
    early_stopping_patience: Annotated[int, pydantic.Field(ge=1)] | None = None
    """After so many evaluations in a row that were no better training ends (transformers' EarlyStoppingCallback)."""
    early_stopping_threshold: Annotated[float, pydantic.Field(ge=0)] = 0.0
    """By how much the loss on the rows held out has to be lower to count as better."""
    seed: Annotated[int, pydantic.Field(ge=0, lt=2**32)] = 42
    data_seed: Annotated[int, pydantic.Field(ge=0, lt=2**32)] | None = None


class DataCollator(Section):
    """How rows become a batch."""

    pad_to_multiple_of: Annotated[int, pydantic.Field(ge=1, le=1024)] | None = None


class DatasetConfig(Section):
    """Which rows are trained on, and which part of each."""

    dataset_path: str | None = None
    """Only the input file of this name, out of several."""
    shuffle_dataset: bool = True
    """Files are often sorted; off keeps their order in every epoch."""
    shuffle_seed: Annotated[int, pydantic.Field(ge=0, lt=2**32)] = 42
    train_test_split: Annotated[float, pydantic.Field(gt=0, le=1)] = 1.0
    """The share that is trained on: all, since tuning sets are small; the rest is evaluated at the end.

    Where TrainingArguments.eval_strategy asks for more and nothing is said here, it is KAITO's 0.8.
    """
    messages_column: str | None = None
    prompt_column: str | None = None
    instruction_column: str | None = None
    context_column: str | None = None
    response_column: str | None = None
    loss: Literal["answers", "all"] = "answers"
    """Prompts are given, not said: more than half of the signal would go to them. `all` is KAITO's way."""


class TrainingConfig(Section):
    """A training_config.yaml, or the defaults where it is silent."""

    model: ModelConfig = ModelConfig()
    quantization: QuantizationConfig = QuantizationConfig()
    lora: LoraConfig = LoraConfig()
    arguments: TrainingArguments = TrainingArguments()
    collator: DataCollator = DataCollator()
    dataset: DatasetConfig = DatasetConfig()
    warnings: tuple[str, ...] = ()
    """What the user wrote that decides nothing here, and why."""


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
