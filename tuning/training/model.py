"""Loads the base model as the method wants it and puts the adapter into it."""

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from presets import kernels
from presets.facts import Capability
from presets.kernels import Kernels
from tuning import errors
from tuning.config import TuningConfig
from tuning.errors import ConfigInvalid, ModelUnusable, NodeTrouble, TuningError, UnsupportedGPU
from tuning.report import log
from tuning.training_config import LoraConfig

FUSED = {
    "q_proj": ("qkv_proj", "query_key_value", "Wqkv"),
    "k_proj": ("qkv_proj", "query_key_value", "Wqkv"),
    "v_proj": ("qkv_proj", "query_key_value", "Wqkv"),
    "gate_proj": ("gate_up_proj",),
    "up_proj": ("gate_up_proj",),
}
"""Where families that fuse layers keep those that users know by their Llama names; peft would skip them in silence."""


def require_gpu() -> None:
    """NodeTrouble where torch can use no GPU: training a real model on the CPU would only cost money."""
    import torch  # noqa: PLC0415

    if torch.cuda.is_available():
        has = Kernels(capabilities=kernels.named(torch.cuda.get_arch_list()), minimum_driver="0")
        require_kernels(has, torch.cuda.get_device_name(), torch.cuda.get_device_capability())
        return
    why = "it sees none"
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except (RuntimeError, AssertionError) as error:  # its words name the driver's version, if there is one
        why = str(error).splitlines()[0]
    raise NodeTrouble(
        f"torch {torch.__version__} (CUDA {torch.version.cuda or 'not built in'}) can use no GPU of this node: "
        f"{why}; another node, or a newer NVIDIA driver on this one, may do"
    )


def require_kernels(has: Kernels, gpu: str, capability: Capability) -> None:
    """UnsupportedGPU where the first computation would say so, minutes later and in fewer words."""
    if not has.run_on(capability):
        raise UnsupportedGPU(
            f"this node has {gpu}, capability {kernels.text(capability)}; this image has kernels for {has}; take"
            " another resource.instanceType, or let the platform team build images for it (make images TORCH=...)"
        )


def precision(wanted: str, device: str) -> str:
    """The dtype to compute in, by its name: what is wanted where the device has it, else the nearest that it has."""
    import torch  # noqa: PLC0415

    if device != "cpu":
        has = {"float32", "float16"} | (
            {"bfloat16"} if torch.cuda.is_bf16_supported(including_emulation=False) else set()
        )
        best = "bfloat16" if "bfloat16" in has else "float16"
    else:
        # a CPU without bfloat16 instructions emulates it, slower than float32
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()  # noqa: SLF001
        has = {"float32"} | ({"bfloat16"} if native else set())
        best = "bfloat16" if native else "float32"
    chosen = wanted if wanted in has else best
    if wanted not in {"auto", chosen}:
        log.warning("this %s has no %s, computing in %s", device, wanted, chosen)
    return chosen


def tokenizer(folder: Path, template: str | None) -> Any:
    """The model's tokenizer, with the user's chat template if he gave one."""
    import transformers  # noqa: PLC0415

    try:
        loaded = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (ValueError, KeyError, OSError, ImportError) as error:
        raise ModelUnusable(f"the model's tokenizer cannot be loaded: {error}") from error
    if template is not None:
        loaded.chat_template = template
    return loaded


def load(folder: Path, config: TuningConfig, device: str, computes: str) -> Any:
    """The frozen base model on the device, in this number format, quantised if the method says so."""
    import torch  # noqa: PLC0415
    import transformers  # noqa: PLC0415

    compute = getattr(torch, computes)
    with explained(config.model.id):
        model, loaded = transformers.AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=compute,
            device_map={"": device},
            quantization_config=_quantization(config, compute),
            output_loading_info=True,
            trust_remote_code=False,  # unsaid, it would wait for an answer on stdin
        )
    if missing := sorted(loaded["missing_keys"]):
        # transformers would go on with random numbers in their place
        raise ModelUnusable(f"model {config.model.id} lacks {len(missing)} weights, the first is {missing[0]}")
    model.config.use_cache = False
    return model


@contextlib.contextmanager
def explained(model: str) -> Iterator[None]:
    """Errors within say why the model cannot be loaded."""
    with _load_report() as report:
        try:
            yield
        except (ValueError, KeyError, AttributeError, ImportError) as error:
            raise ModelUnusable(f"model {model} cannot be loaded: {type(error).__name__}: {error}") from error
        except RuntimeError as error:
            if "the above report" not in str(error):
                raise
            raise _reported(model, error, report.getvalue()) from error


@contextlib.contextmanager
def _load_report() -> Iterator[io.StringIO]:
    """What transformers logs about loading: a failed conversion's cause, as being out of memory, stands there alone.

    It is a warning, which our TRANSFORMERS_VERBOSITY hides, and rightly where nothing fails.
    """
    logger, report = logging.getLogger("transformers.modeling_utils"), io.StringIO()
    listener, before = logging.StreamHandler(report), (logger.level, logger.propagate)
    logger.addHandler(listener)
    logger.setLevel(logging.WARNING)
    logger.propagate = False
    try:
        yield report
    finally:
        logger.removeHandler(listener)
        logger.setLevel(before[0])
        logger.propagate = before[1]


def _reported(model: str, error: RuntimeError, report: str) -> TuningError:
    """What the first cause in the report means."""
    log.error("%s", report)
    causes = re.findall(r"^[\w.]*(?:Error|Exception)\b.*|^.*ckpt: .* vs model:.*", report, re.MULTILINE)
    cause = causes[0].strip() if causes else str(error)
    known = errors.explain(RuntimeError(cause))
    return ModelUnusable(f"model {model} cannot be loaded: {cause}") if type(known) is TuningError else known


def _quantization(config: TuningConfig, compute: Any) -> Any:
    import transformers  # noqa: PLC0415

    wanted = config.training.quantization
    if config.method == "lora":
        return None
    if wanted.load_in_8bit:
        return transformers.BitsAndBytesConfig(
            load_in_8bit=True,
            llm_int8_threshold=wanted.llm_int8_threshold,
            llm_int8_skip_modules=list(wanted.llm_int8_skip_modules) or None,
        )
    return transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=wanted.bnb_4bit_quant_type,
        bnb_4bit_compute_dtype=compute,
        bnb_4bit_use_double_quant=wanted.bnb_4bit_use_double_quant,
        llm_int8_skip_modules=list(wanted.llm_int8_skip_modules) or None,
    )


def attach(model: Any, wanted: LoraConfig) -> Any:
    """The model with a fresh adapter, which alone can be trained.

    Not by peft's `prepare_model_for_kbit_training`: it makes embeddings and head fp32, gigabytes that buy nothing.
    """
    import peft  # noqa: PLC0415

    config = peft.LoraConfig(
        task_type="CAUSAL_LM",
        r=wanted.r,
        lora_alpha=wanted.lora_alpha,
        lora_dropout=wanted.lora_dropout,
        target_modules=targets(model, wanted),
        init_lora_weights=wanted.init_lora_weights,
        use_rslora=wanted.use_rslora,
        rank_pattern=wanted.rank_pattern,
        alpha_pattern=wanted.alpha_pattern,
        layers_to_transform=list(wanted.layers_to_transform) or None,
        layers_pattern=list(wanted.layers_pattern) or None,
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # peft's own calls of renamed transformers functions
            adapted = peft.get_peft_model(model, config)
    except ValueError as error:
        raise ConfigInvalid(f"LoraConfig: {error}") from error
    trainable, everything = adapted.get_nb_trainable_parameters()
    log.info("training %d of %d parameters, in %s", trainable, everything, ", ".join(sorted(config.target_modules)))
    return adapted


def causal(model: Any) -> Any:
    """The language model below the adapter, if there is one."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def recompute(model: Any) -> None:
    """Keep no activations but each layer's input: the backward pass computes them again."""
    causal(model).activation_checkpointing_enable({"use_reentrant": False})
    causal(model).enable_input_require_grads()


def calm(model: Any) -> None:
    """Nothing random, as for answers; but 4-bit layers are to think that they are trained.

    On a CPU bitsandbytes else rearranges their weights for inference, for good, and gradients through them are wrong
    ever after.
    """
    model.eval()
    for module in model.modules():
        if type(module).__module__.startswith("bitsandbytes"):
            module.training = True


def targets(model: Any, wanted: LoraConfig) -> list[str]:
    """The suffixes of the layers to adapt: all linear ones but the head, or those asked for, by this model's names.

    Short names, since peft writes `all-linear` as every layer's path; what is excluded is left out here, since peft
    before 0.14 does not know the key for it.
    """
    there = linear_suffixes(model)
    chosen = {found for name in wanted.target_modules for found in _here(name, there, "target_modules")} or there
    left = chosen - {found for name in wanted.exclude_modules for found in _here(name, there, "exclude_modules")}
    if not left:
        raise ConfigInvalid("LoraConfig.exclude_modules leaves no layer to adapt; exclude fewer")
    return sorted(left)


def _here(name: str, there: set[str], key: str) -> list[str]:
    """What the layer is called in this model."""
    suffix = name.rsplit(".", maxsplit=1)[-1]
    found = [suffix] if suffix in there else [fused for fused in FUSED.get(suffix, ()) if fused in there]
    if not found:
        raise ConfigInvalid(
            f"LoraConfig.{key}: {name!r} is no linear layer of this model; take from {', '.join(sorted(there))}"
        )
    if found != [suffix]:
        log.info("LoraConfig.%s: %s is part of %s in this model", key, name, found[0])
    return found


def linear_suffixes(model: Any) -> set[str]:
    """The last names of all linear layers but the head."""
    import torch  # noqa: PLC0415

    head = model.get_output_embeddings()
    return {
        name.rsplit(".", maxsplit=1)[-1]
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    }
