"""The sections of a training_config.yaml, each key with its default and the reason for it."""

import contextlib
import re
from typing import Annotated, Any, Literal

import pydantic

from tuning import training_keys

Method = Literal["lora", "qlora"]
Share = Annotated[float, pydantic.Field(ge=0, lt=1)]
_MOST = 1_000_000
"""Of what no run has so many of: a slip of the pen is told before a GPU is bought."""


def _is_pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"it is no regular expression ({error}); write the end of a layer's name") from error
    return text


def _number(value: object) -> object:
    """What YAML takes for text is one too: `1e-6`, which has no dot."""
    with contextlib.suppress(ValueError):
        return float(value) if isinstance(value, str) else value
    return value


Pattern = Annotated[str, pydantic.AfterValidator(_is_pattern)]


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
    lora_alpha: int = pydantic.Field(ge=1, le=_MOST, default_factory=lambda known: 2 * int(known["r"]))
    """Twice the rank, so that the learning rate keeps its meaning when the rank changes."""
    lora_dropout: Share = 0.0
    """KAITO's; three epochs of answers seldom overfit."""
    target_modules: tuple[str, ...] = ()
    """Suffixes of layer names; empty means all linear layers but the head, which closes the gap to full tuning."""
    exclude_modules: tuple[str, ...] = ()
    init_lora_weights: Literal[True, False, "gaussian"] = True
    """Only starts that leave the base model as it is: an adapter of pissa, olora or corda needs a changed one."""
    use_rslora: bool = False
    rank_pattern: dict[Pattern, Annotated[int, pydantic.Field(ge=1, le=512)]] = {}
    alpha_pattern: dict[Pattern, Annotated[int, pydantic.Field(ge=1, le=_MOST)]] = {}
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
    max_steps: Annotated[int, pydantic.Field(ge=-1, le=10**9)] = -1
    """Above zero it overrides the epochs."""
    per_device_train_batch_size: Annotated[int, pydantic.Field(ge=1, le=1024)] = 2
    """Rows at once: small, since 2,048 tokens of each must fit beside the weights."""
    per_device_eval_batch_size: Annotated[int, pydantic.Field(ge=1, le=1024)] = 2
    gradient_accumulation_steps: int = pydantic.Field(
        ge=1, le=_MOST, default_factory=lambda known: max(1, 8 // int(known["per_device_train_batch_size"]))
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
    lr_scheduler_kwargs: dict[str, Annotated[float | int | str, pydantic.BeforeValidator(_number)]] = {}
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
    packing: bool = False
    """Whether as many rows as `max_length` holds count as one: fewer steps, each of which learns from more rows."""
    packing_strategy: str = "bfd"
    """Best fit, the longest rows first; none is cut, and none sees another."""
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
    report_to: tuple[Literal["wandb", "mlflow", "tensorboard"], ...] = ()
    """Trackers that hear of each step, see `tuning.tracking`."""
    run_name: str | None = None
    """What they call the run; the Workspace's name where it is not said."""
    seed: Annotated[int, pydantic.Field(ge=0, lt=2**32)] = 42
    data_seed: Annotated[int, pydantic.Field(ge=0, lt=2**32)] | None = None

    @pydantic.field_validator("packing_strategy")
    @classmethod
    def _whole(cls, value: str) -> str:
        if value != "bfd":
            raise ValueError("it cuts rows in two, so that answers are learned without their questions; write bfd")
        return value

    @pydantic.field_validator("report_to", mode="before")
    @classmethod
    def _trackers(cls, value: object) -> object:
        """One name or several; those of transformers' that are not spoken to here are left out, `parse` says so."""
        names = [value] if isinstance(value, str) else value
        if not isinstance(names, list | tuple):
            return names
        if "all" in names:
            return training_keys.TRACKERS
        return tuple(dict.fromkeys(name for name in names if name not in training_keys.TRACKERS_IDLE))


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

    @property
    def decides(self) -> dict[str, Any]:
        """All values that a step depends on, in the words of every release: newer keys only where they are not idle."""
        found = self.model_dump(exclude={"warnings"})
        for section, newer in _NEWER.items():
            found[section] = {key: value for key, value in found[section].items() if (key, value) not in newer.items()}
        return found

    @property
    def rank(self) -> int:
        """The largest of all layers'."""
        return max([self.lora.r, *self.lora.rank_pattern.values()])

    @property
    def stored(self) -> Literal["8 bits", "4 bits"] | None:
        """In how many bits qlora keeps the base model, as `presets.memory` calls it; None for its own default."""
        if self.quantization.load_in_8bit:
            return "8 bits"
        return None if self.quantization.bnb_4bit_use_double_quant else "4 bits"

    @property
    def checkpoint_bytes(self) -> float:
        """Of each trained weight in a checkpoint: itself, what the optimizer keeps of it, itself when it was best."""
        asked = self.arguments
        return 4 + _OPTIMIZER_BYTES.get(asked.optim, 8) + (4 if asked.load_best_model_at_end else 0)

    def written_bytes(self, *, kept: bool) -> float:
        """Of each trained weight that a volume needs room for: in the adapter, in checkpoints where they are kept."""
        return _ADAPTER_BYTES + (_CHECKPOINTS * self.checkpoint_bytes if kept else 0)


_NEWER = {"arguments": {"packing": False, "packing_strategy": "bfd"}}
"""Keys that checkpoints were once made without, each with the value under which a step is what it was then."""
_ADAPTER_BYTES = 2
"""Of a weight: it is written in 16 bits."""
_OPTIMIZER_BYTES = {"sgd": 0, "adamw_8bit": 2.5, "adamw_bnb_8bit": 2.5, "paged_adamw_8bit": 2.5}
"""Two moments of 32 bits if nothing is said here; of 8 bits with their scales, for each 256 of them and each tensor."""
_CHECKPOINTS = 3
"""Two are kept, and one is written."""
