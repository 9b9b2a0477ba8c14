"""The config files that a Workspace names: read from ConfigMaps, held against Workspace and model.

What preflight and `plan` both say. Pure but for `Read`, by which whoever asks finds ConfigMaps: in the cluster, or
beside the manifest.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

import presets
from kaito_hera import errors, runtimes
from kaito_hera.api import Workspace
from kaito_hera.settings import Settings
from serving import inference_config
from serving.config import Runtime
from serving.inference_config import InferenceConfig
from tuning import training_config
from tuning.training_config import Method, TrainingConfig
from workflows import trackers

MISSING = " is missing"
_T = TypeVar("_T")
Read = Callable[[str, str], Mapping[str, str] | None]
"""The data of a ConfigMap by its namespace and name; None where there is none."""


@dataclasses.dataclass(frozen=True)
class Config(Generic[_T]):
    """What is honoured of a file."""

    honoured: _T
    text: str = ""
    """The file's; empty where the image's defaults are taken."""
    warnings: tuple[str, ...] = ()


def defaults(method: Method) -> TrainingConfig:
    """The tuning image's own."""
    return training_config.parse("training_config: {}", method)


def template(method: str) -> str:
    """The name of the operator's ConfigMap for tuning runs that name none."""
    return f"{method}-params-template"


def training(workspace: Workspace, settings: Settings, read: Read) -> Config[TrainingConfig]:
    """A tuning run's: of the user's ConfigMap, else of the operator's, else the image's defaults.

    Raises ConfigMapNotFoundError or ConfigInvalidError.
    """
    asked = workspace.tuning
    assert asked is not None
    namespace, name = workspace.metadata.namespace, asked.config
    where = f"tuning.config: ConfigMap {namespace}/{name}"
    if not name:
        namespace, name = settings.namespace, template(asked.method)
        where = f"the operator's ConfigMap {namespace}/{name}"
        if read(namespace, name) is None:
            usual = defaults(asked.method)
            return Config(usual, warnings=trackers.warnings(workspace, usual))
    text = _text(read, namespace, name, key="training_config.yaml", where=where)
    try:
        found = training_config.parse(text, asked.method)
    except ValueError as cause:
        raise errors.ConfigInvalidError(f"{where}: {cause}") from cause
    said = (*(f"{where}: {warning}" for warning in found.warnings), *trackers.warnings(workspace, found))
    return Config(found, text, said)


def inference(
    workspace: Workspace, model: presets.Preset | None, read: Read, runtime: Runtime = "transformers"
) -> Config[InferenceConfig]:
    """A server's, of this runtime; raises ConfigMapNotFoundError or ConfigInvalidError."""
    namespace, name = workspace.metadata.namespace, workspace.inference.config if workspace.inference else None
    if not name:
        usual = InferenceConfig()
        return Config(usual, warnings=_restarts(workspace, model, usual, runtime))
    if workspace.preset is None:
        text = f"inference.config: {name} has no effect, a pod of your own mounts its own settings"
        return Config(InferenceConfig(), warnings=(text,))
    where = f"inference.config: ConfigMap {namespace}/{name}"
    text = _text(read, namespace, name, key=inference_config.FILE, where=where)
    try:
        found, warnings = inference_config.parse(text, runtime)
    except ValueError as cause:
        raise errors.ConfigInvalidError(f"{where}: {cause}") from cause
    if problem := _against(workspace, model, found):
        raise errors.ConfigInvalidError(f"{where}: {inference_config.FILE}: {problem}")
    said = (*(f"{where}: {warning}" for warning in warnings), *_restarts(workspace, model, found, runtime))
    return Config(found, text, said)


def _restarts(
    workspace: Workspace, model: presets.Preset | None, config: InferenceConfig, runtime: Runtime
) -> tuple[str, ...]:
    """That vLLM has to be started for adapters, where it is not known that there will always be some, or never."""
    never = workspace.preset is None or (model is not None and runtimes.WITHOUT_ADAPTERS in model.limits)
    if runtime != "vllm" or "enable_lora" in config.vllm or workspace.tuning or never:
        return ()
    which = "taking the last one out" if workspace.adapters else "the first one"
    why = "vLLM takes memory for adapters from its start on, where there are some"
    remedy = "write enable-lora: true below vllm in inference.config, and it always does"
    return (f"inference.adapters: {which} restarts the server, since {why}; {remedy}",)


def _text(read: Read, namespace: str, name: str, *, key: str, where: str) -> str:
    data = read(namespace, name)
    if data is None:
        make = f"`kubectl -n {namespace} create configmap {name} --from-file={key}`"
        raise errors.ConfigMapNotFoundError(f"{where}{MISSING}; make it with {make}, it is looked for again by itself")
    if key not in data:
        raise errors.ConfigInvalidError(f"{where} has no key {key}, it has {', '.join(data) or 'nothing'}")
    return data[key]


def _against(workspace: Workspace, model: presets.Preset | None, config: InferenceConfig) -> str:
    """What the model or the Workspace does not allow."""
    if model and config.max_model_len and config.max_model_len > model.context_limit:
        return (
            f"vllm.max-model-len: {config.max_model_len} is more than {model.name} takes; write at most"
            f" {model.context_limit}, or leave it out"
        )
    if model and config.gpus not in {0, *(counts := presets.splits(model.shape))}:
        return (
            f"vllm.tensor-parallel-size: {config.gpus} GPUs cannot share {model.name}, whose parts can be divided among"
            f" {', '.join(map(str, counts))}; write one of these, or leave it out"
        )
    taken = {adapter.source.name for adapter in workspace.adapters}
    taken |= {workspace.metadata.name} if workspace.tuning else set()
    if config.served_model_name in taken:
        return f"vllm.served-model-name: {config.served_model_name!r} is the name of an adapter; write another one"
    return ""
