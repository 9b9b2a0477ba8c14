"""Starts vLLM on a checkpoint: its arguments, and what of its answers becomes our `ModelInfo`.

The one module that imports vLLM, when it is called. Never run on a GPU: it is held against recorded signatures of the
pinned release (tests/serving/vllm).
"""

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers

import presets
from serving import errors
from serving.config import ServingConfig
from serving.engine import generation
from serving.engine.protocol import ModelInfo
from serving.engine.slot import settings
from serving.engine.vllm.engine import FEATURES, NEVER, Library, VllmEngine
from serving.engine.vllm.figures import Figures
from serving.engine.vllm.mixes import Mixes
from serving.inference_vllm import LORA

AS_MUCH_AS_FITS = -1
"""max_model_len: vLLM takes the model's context, or what its cache holds of it."""


def load(folder: Path, config: ServingConfig, mixes: Path) -> VllmEngine:
    """An engine over vLLM with the model in `folder`, loaded and run; raises an error of `serving.errors`.

    `mixes` is a folder for what it makes of adapters: what a process before this one left there is removed.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not gpus:
        raise errors.NodeTrouble("vLLM finds no GPU; see that the node's NVIDIA driver works, or replace the node")
    return start(folder, config, mixes, gpus)


def start(folder: Path, config: ServingConfig, mixes: Path, gpus: int) -> VllmEngine:
    """The same where the number of GPUs is known."""
    wanted = arguments(folder, config, gpus=gpus)
    figures = Figures()
    llm = _start(wanted, figures)
    own = _generation(folder)
    return VllmEngine(
        llm,
        _library(),
        own=own,
        info=_info(llm, own, gpus=wanted["tensor_parallel_size"] * config.nodes),
        mixes=Mixes(mixes, _linears(folder), rank=_rank(wanted)),
        figures=figures,
    )


def arguments(folder: Path, config: ServingConfig, *, gpus: int) -> dict[str, Any]:
    """AsyncEngineArgs: ours, below them the user's, below these our defaults.

    All GPUs of the pod share each layer, as far as it can be divided among them.
    """
    counts = tuple(count for count in presets.splits(_shape(folder)) if count <= gpus)
    wanted: dict[str, Any] = {**LORA, "tensor_parallel_size": max(counts), **config.vllm}
    if (asked := wanted["tensor_parallel_size"]) not in counts:
        raise errors.BadConfig(
            f"inference_config.yaml: vllm.tensor-parallel-size: {asked} GPUs cannot share this model in a pod with"
            f" {gpus}; write one of {', '.join(map(str, counts))}, or leave it out"
        )
    if not wanted["enable_lora"]:
        wanted = {name: value for name, value in wanted.items() if name not in LORA}
    return wanted | _spread(config, gpus, wanted["tensor_parallel_size"]) | {
        "model": str(folder),
        "dtype": config.dtype,
        "max_model_len": config.context or AS_MUCH_AS_FITS,
        "load_format": "safetensors",
        "trust_remote_code": False,
        "generation_config": "vllm",  # a request's wishes are settled on our side
        "enable_log_requests": False,
        "disable_log_stats": True,
    }  # fmt: skip


def _spread(config: ServingConfig, gpus: int, shares: int) -> dict[str, Any]:
    """How its processes are started: over several nodes by Ray, each node with a stage of the layers."""
    if config.nodes == 1:
        return {"distributed_executor_backend": "mp"} if shares > 1 else {}
    if shares != gpus:
        raise errors.BadConfig(
            f"each of {config.nodes} nodes must use all of its {gpus} GPUs, and this model's layers are divided among"
            f" {shares}: take a size whose number of GPUs divides the model's heads, and leave"
            " inference_config.yaml's vllm.tensor-parallel-size out"
        )
    return {"distributed_executor_backend": "ray", "pipeline_parallel_size": config.nodes}


def _start(wanted: Mapping[str, Any], figures: Figures) -> Any:
    vllm: Any = importlib.import_module("vllm")
    engines: Any = importlib.import_module("vllm.v1.engine.async_llm")
    try:
        return engines.AsyncLLM.from_engine_args(vllm.AsyncEngineArgs(**wanted), stat_loggers=[figures.logger])
    except (ValueError, KeyError, TypeError, NotImplementedError) as error:
        raise errors.BadModel(f"vLLM cannot serve the checkpoint: {_line(error)}") from error
    except torch.OutOfMemoryError as error:
        raise errors.ModelDoesNotFit(f"vLLM has not enough GPU memory: {_line(error)}; take a larger GPU") from error
    except RuntimeError as error:  # its own process died; what of, only the log says
        raise errors.EngineDied(f"vLLM did not start: {_line(error)}; its log above says why") from error


def _library() -> Library:
    vllm: Any = importlib.import_module("vllm")
    params: Any = importlib.import_module("vllm.sampling_params")
    problems: Any = importlib.import_module("vllm.exceptions")
    return Library(
        sampling_params=vllm.SamplingParams,
        output_kind=params.RequestOutputKind,
        structured=params.StructuredOutputsParams,
        lora_request=importlib.import_module("vllm.lora.request").LoRARequest,
        engine_dead=importlib.import_module("vllm.v1.engine.exceptions").EngineDeadError,
        refused=(problems.VLLMClientError, ValueError),
    )


def _config(folder: Path) -> dict[str, Any]:
    """The text part of config.json as it is written: vLLM serves models whose class transformers has not."""
    try:
        whole = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise errors.BadModel(f"config.json of the model cannot be read: {error}") from error
    return whole | whole.get("text_config", {}) if isinstance(whole, dict) else {}


def _shape(folder: Path) -> presets.Shape | None:
    try:
        return presets.shape("the model", _config(folder))
    except presets.UnservableError as error:
        raise errors.BadModel(str(error)) from error


def _generation(folder: Path) -> Any:
    try:
        return transformers.GenerationConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError):
        return transformers.GenerationConfig(eos_token_id=_config(folder).get("eos_token_id"))


def _info(llm: Any, own: Any, *, gpus: int) -> ModelInfo:
    model, scheduler = llm.vllm_config.model_config, llm.vllm_config.scheduler_config
    defaults, stop_ids = generation.defaults(own)
    return ModelInfo(
        kind="vllm",
        concurrency=scheduler.max_num_seqs,
        context=model.max_model_len,
        vocabulary=model.hf_text_config.vocab_size,
        stop_ids=stop_ids,
        defaults=defaults,
        features=FEATURES,
        dtype=str(model.dtype).removeprefix("torch."),
        device="cuda" if gpus == 1 else f"{gpus} GPUs",
        notes=_notes(own, model),
    )


def _notes(own: Any, model: Any) -> tuple[str, ...]:
    notes = []
    unknown = settings.Reader(own, model.hf_text_config.vocab_size).unknown()
    unheard = [name for name, idle in NEVER.items() if getattr(own, name, None) not in idle]
    unheard += [unknown] if unknown else []
    if unheard:
        notes.append(f"vLLM does not obey {', '.join(unheard)} of the model's generation_config.json")
    whole = getattr(model.hf_text_config, "max_position_embeddings", None) or model.max_model_len
    if model.max_model_len < whole:
        notes.append(f"the context is {model.max_model_len:,} tokens of the model's {whole:,}")
    return tuple(notes)


def _linears(folder: Path) -> Mapping[str, tuple[int, int]]:
    """The linear layers that adapters can be for; none where transformers does not know the model."""
    try:
        found = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        with torch.device("meta"):
            model = transformers.AutoModelForCausalLM.from_config(found)
    except (OSError, ValueError, KeyError, AttributeError, ImportError):
        return {}
    return {
        name: (module.in_features, module.out_features)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
    }


def _rank(wanted: Mapping[str, Any]) -> int:
    return int(wanted.get("max_lora_rank", 0))


def _line(error: Exception) -> str:
    return str(error).partition("\n")[0]
