"""Loads a checkpoint with the number type that suits the machine.

Weights come from safetensors only and no code of the checkpoint runs. Knows a folder and the device, not the hub.
"""

import json
from pathlib import Path
from typing import Any

import torch
import transformers

from serving import errors
from serving.engine import placement


def load_model(folder: Path, *, threads: int, require_gpu: bool = False, wanted: str = "auto") -> Any:
    """The model in `folder`, on the GPU if there is one or it is required, after its first run.

    `wanted` is its number type by torch's name; `auto` leaves it to `number_type`.
    """
    if require_gpu and not torch.cuda.is_available():
        raise errors.NodeTrouble(_no_gpu())
    _refuse_slow(wanted)
    torch.set_num_threads(threads)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    dtype = number_type(_stored_type(folder)) if wanted == "auto" else getattr(torch, wanted)
    try:
        places = _places(folder, dtype)
        model = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, local_files_only=True, trust_remote_code=False, use_safetensors=True, device_map=places
        )
        if places is None:
            model = model.to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
        return run_once(model.eval())
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise errors.ModelDoesNotFit(f"the weights in {dtype} do not fit: {error}; take a larger GPU") from error
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise errors.BadModel(f"the checkpoint cannot be served: {str(error).partition(chr(10))[0]}") from error


def _places(folder: Path, dtype: torch.dtype) -> dict[str, str] | None:
    """A GPU for each layer, where there are several and one does not hold the model."""
    gpus = range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
    if len(gpus) < 2:
        return None
    config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype)
    size = placement.size_of(model)
    if (getattr(config, "quantization_config", None) or {}).get("quant_method") == "bitsandbytes":
        size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    if not placement.needs_several(size, [torch.cuda.mem_get_info(gpu)[0] for gpu in gpus]):
        return None
    return placement.divided(model, [f"cuda:{gpu}" for gpu in gpus])


def run_once(model: Any) -> Any:
    """The model, after a forward pass: weights that leave no room for one do not fit either."""
    with torch.inference_mode():
        try:
            model(torch.ones((1, 2), dtype=torch.long, device=model.device))
        except (torch.OutOfMemoryError, MemoryError) as error:
            raise errors.ModelDoesNotFit(f"the weights leave no room to run: {error}; take a larger GPU") from error
    return model


def _refuse_slow(wanted: str) -> None:
    """A GPU without bfloat16 emulates it, many times slower than it could."""
    if wanted == "bfloat16" and torch.cuda.is_available() and torch.cuda.get_device_capability() < (8, 0):
        name = torch.cuda.get_device_name()
        raise errors.BadConfig(
            f"inference_config.yaml: vllm.dtype: 'bfloat16' is not computed by a {name}; write auto or float16"
        )


def _no_gpu() -> str:
    return (
        f"require_gpu is true and torch {torch.__version__} finds no GPU: it is built for CUDA {torch.version.cuda}; "
        "see that the node's NVIDIA driver works and is new enough for that, or replace the node"
    )


def number_type(stored: torch.dtype) -> torch.dtype:
    """16 bits where the hardware computes in them, else 32.

    GPUs: bfloat16 from compute capability 8.0, before that float16. CPUs: the stored type if it is float32 or if
    bfloat16 products are in hardware; emulated ones are many times slower than float32.
    """
    if torch.cuda.is_available():
        return torch.bfloat16 if torch.cuda.get_device_capability() >= (8, 0) else torch.float16
    if stored == torch.float32 or not torch.cpu.get_capabilities().get("avx512_bf16"):
        return torch.float32
    return torch.bfloat16


def _stored_type(folder: Path) -> torch.dtype:
    try:
        config = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise errors.BadModel(f"config.json of the model cannot be read: {error}") from error
    text = config.get("text_config", {})
    name = next((part[key] for part in (config, text) for key in ("dtype", "torch_dtype") if part.get(key)), "float32")
    stored = getattr(torch, str(name), torch.float32)
    assert isinstance(stored, torch.dtype)
    return stored
