"""The user's inference_config.yaml: read from the ConfigMap that `inference.config` names, held against the model."""

import presets
from kaito_hera import checks, errors
from kaito_hera.api import Workspace
from kaito_hera.run import Run
from serving import inference_config
from serving.inference_config import InferenceConfig
from workflows import configs
from workflows.asks import models

FIELD = "inference.config"


def read(run: Run, found: presets.Preset | None = None) -> tuple[InferenceConfig, tuple[str, ...]]:
    """What is honoured of it, and warnings; raises ConfigMapNotFoundError or ConfigInvalidError.

    `found` is a model of the hub that was looked at.
    """
    asked = run.workspace.inference
    if asked is None or not asked.config:
        return InferenceConfig(), ()
    namespace = run.workspace.metadata.namespace
    if run.workspace.preset is None:
        return InferenceConfig(), (f"{FIELD}: {asked.config} has no effect, a pod of your own mounts its own settings",)
    text = checks.config_map(run.cluster, namespace, asked.config, key=inference_config.FILE, field=FIELD)
    return judged(run.workspace, found or models.known(run.workspace), text)


def judged(workspace: Workspace, model: presets.Preset | None, text: str) -> tuple[InferenceConfig, tuple[str, ...]]:
    """The same of the file's text; pure."""
    name = workspace.inference.config if workspace.inference else ""
    where = f"{FIELD}: ConfigMap {workspace.metadata.namespace}/{name}"
    try:
        found, warnings = configs.inference(workspace, model, text)
    except ValueError as cause:
        raise errors.ConfigInvalidError(f"{where}: {cause}") from cause
    return found, tuple(f"{where}: {warning}" for warning in warnings)
