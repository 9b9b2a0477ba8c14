"""The user's inference_config.yaml: read from the ConfigMap that `inference.config` names, held against the model."""

import presets
from kaito_hera import checks, errors
from kaito_hera.api import Workspace
from kaito_hera.run import Run
from serving import inference_config
from serving.inference_config import InferenceConfig

FIELD = "inference.config"


def read(run: Run) -> tuple[InferenceConfig, tuple[str, ...]]:
    """What is honoured of it, and warnings; raises ConfigMapNotFoundError or ConfigInvalidError."""
    asked = run.workspace.inference
    if asked is None or not asked.config:
        return InferenceConfig(), ()
    namespace = run.workspace.metadata.namespace
    if run.workspace.preset is None:
        return InferenceConfig(), (f"{FIELD}: {asked.config} has no effect, a pod of your own mounts its own settings",)
    text = checks.config_map(run.cluster, namespace, asked.config, key=inference_config.FILE, field=FIELD)
    return judged(run.workspace, presets.preset(run.workspace.preset_name), text)


def judged(workspace: Workspace, model: presets.Preset, text: str) -> tuple[InferenceConfig, tuple[str, ...]]:
    """The same of the file's text; pure."""
    name = workspace.inference.config if workspace.inference else ""
    where = f"{FIELD}: ConfigMap {workspace.metadata.namespace}/{name}"
    try:
        found, warnings = inference_config.parse(text)
    except ValueError as cause:
        raise errors.ConfigInvalidError(f"{where}: {cause}") from cause
    if problem := _against(workspace, model, found):
        raise errors.ConfigInvalidError(f"{where}: {inference_config.FILE}: {problem}")
    return found, tuple(f"{where}: {warning}" for warning in warnings)


def _against(workspace: Workspace, model: presets.Preset, config: InferenceConfig) -> str:
    """What the model or the Workspace does not allow."""
    if config.max_model_len and config.max_model_len > model.context_limit:
        return (
            f"vllm.max-model-len: {config.max_model_len} is more than {model.name} takes; write at most"
            f" {model.context_limit}, or leave it out"
        )
    taken = {adapter.source.name for adapter in workspace.adapters}
    taken |= {workspace.metadata.name} if workspace.tuning else set()
    if config.served_model_name in taken:
        return f"vllm.served-model-name: {config.served_model_name!r} is the name of an adapter; write another one"
    return ""


def as_loaded(model: presets.Preset, config: InferenceConfig) -> presets.Preset:
    """The model with the numbers that memory follows from in the number type that is asked for."""
    if config.dtype != "float32" or model.quantisation:
        return model
    shape = model.shape
    cache = model.cache_bytes_per_token or (4 * shape.layers * shape.kv_heads * shape.head_size if shape else None)
    weights = model.transformers_gib or model.weights_gib
    return model.model_copy(
        update={"transformers_gib": 2 * weights, "cache_bytes_per_token": 2 * cache if cache else None}
    )
