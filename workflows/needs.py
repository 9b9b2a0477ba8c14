"""From the images' configs to the numbers that GPU memory follows from, since `sizing` knows no image. Pure."""

import math

import presets
from kaito_hera import loads, runtimes
from kaito_hera.api import Workspace
from kaito_hera.settings import Settings
from presets import memory
from serving import inference_vllm
from serving.config import Runtime
from serving.inference_config import InferenceConfig
from tuning.training_config import TrainingConfig

_UNKNOWN_GIB = 32


def demands(
    workspace: Workspace,
    model: presets.Preset | None,
    training: TrainingConfig | None,
    server: InferenceConfig,
    runtime: Runtime = "transformers",
) -> tuple[loads.Demand, ...]:
    """What is asked of one GPU; nothing of a model whose numbers are not known (yet)."""
    if model is None:
        return ()
    config = workspace.tuning.config if workspace.tuning else None
    rows = batch(training, "tuning.config" if config else "the operator's training_config") if training else None
    return loads.demands(workspace, as_loaded(model, server, runtime), rows, served(workspace, server, runtime))


def served(workspace: Workspace, server: InferenceConfig, runtime: Runtime) -> loads.Server:
    """What an inference_config makes of a server."""
    asked = "inference.config asks for it (vllm.dtype: bfloat16)" if server.dtype == "bfloat16" else ""
    lora = {**inference_vllm.LORA, "enable_lora": runtimes.takes_adapters(workspace), **server.vllm}
    return loads.Server(
        server.max_model_len or 0,
        asked,
        server.gpus,
        vllm=runtime == "vllm",
        nodes=runtimes.nodes(workspace, runtime),
        adapters=lora["max_loras"] if runtime == "vllm" and lora["enable_lora"] else 0,
        rank=lora["max_lora_rank"],
        width=4 if server.dtype == "float32" else 2,
    )


def batch(training: TrainingConfig, where: str = "tuning.config") -> loads.Batch:
    """What a training_config puts on the GPU at once; of the rows no more is known than that `max_length` cuts them."""
    compute = training.quantization.bnb_4bit_compute_dtype
    key = "QuantizationConfig.bnb_4bit_compute_dtype" if compute else "ModelConfig.torch_dtype"
    bfloat16 = (compute or training.model.torch_dtype) == "bfloat16"
    arguments = training.arguments
    return loads.Batch(
        rows=arguments.per_device_train_batch_size,
        length=arguments.max_length,
        rank=training.rank,
        recompute=arguments.activation_checkpointing is not False,
        whole_head=arguments.label_smoothing_factor > 0,
        bfloat16=f"{where} asks for it ({key}: bfloat16)" if bfloat16 else "",
        stored=training.stored,
    )


def scratch_gib(model: presets.Preset | None, training: TrainingConfig) -> int:
    """GiB of a volume for checkpoints and adapter, with a fifth to spare; of a model that no file describes, enough."""
    if model is None:
        return _UNKNOWN_GIB
    return 1 + math.ceil(1.2 * memory.trained(model, training.rank) * training.written_bytes(kept=True) / 2**30)


def disk(
    workspace: Workspace, settings: Settings, model: presets.Preset | None, training: TrainingConfig | None
) -> dict[str, float]:
    """GiB of a node's own disk that tuning needs beside images and data, part by part; empty where it is not known."""
    if workspace.tuning is None or model is None or training is None:
        return {}
    found = {"weights": model.weights_gib}
    if workspace.tuning.output.image and not settings.tuning_scratch:
        kept = workspace.tuning.checkpoint_seconds > 0
        written = memory.trained(model, training.rank) * training.written_bytes(kept=kept) / 2**30
        found["checkpoints and adapter" if kept else "adapter"] = written
    return found


def as_loaded(model: presets.Preset, config: InferenceConfig, runtime: Runtime = "transformers") -> presets.Preset:
    """The model with the numbers that memory follows from in the number type that is asked for."""
    if runtime == "vllm":  # it computes on weights as they are stored
        model = model.model_copy(update={"transformers_gib": None})
    if config.dtype != "float32" or model.quantisation:
        return model
    shape = model.shape
    cache = model.cache_bytes_per_token or (4 * shape.layers * shape.kv_heads * shape.head_size if shape else None)
    weights = model.transformers_gib or model.weights_gib
    return model.model_copy(
        update={"transformers_gib": 2 * weights, "cache_bytes_per_token": 2 * cache if cache else None}
    )
