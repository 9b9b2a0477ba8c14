"""The text of a server's config file, held against Workspace and model: what preflight and `plan` both say. Pure."""

import presets
from kaito_hera.api import Workspace
from serving import inference_config
from serving.inference_config import InferenceConfig


def inference(workspace: Workspace, model: presets.Preset | None, text: str) -> tuple[InferenceConfig, tuple[str, ...]]:
    """What is honoured of an inference_config.yaml, and warnings; raises ValueError."""
    found, warnings = inference_config.parse(text)
    if problem := _against(workspace, model, found):
        raise ValueError(f"{inference_config.FILE}: {problem}")
    return found, warnings


def _against(workspace: Workspace, model: presets.Preset | None, config: InferenceConfig) -> str:
    """What the model or the Workspace does not allow."""
    if model and config.max_model_len and config.max_model_len > model.context_limit:
        return (
            f"vllm.max-model-len: {config.max_model_len} is more than {model.name} takes; write at most"
            f" {model.context_limit}, or leave it out"
        )
    taken = {adapter.source.name for adapter in workspace.adapters}
    taken |= {workspace.metadata.name} if workspace.tuning else set()
    if config.served_model_name in taken:
        return f"vllm.served-model-name: {config.served_model_name!r} is the name of an adapter; write another one"
    return ""
