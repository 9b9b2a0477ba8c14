"""What is asked of the two images for a Workspace: their configs, and the pods that run them.

The only place that knows both sides: the operator's Workspace and the images' own config models.
"""

from typing import Any

import presets
from kaito_hera import checks, jobs, rollout, sizing, volumes
from kaito_hera import cluster as clusters
from kaito_hera.api import Workspace
from kaito_hera.run import Run
from serving.inference_config import InferenceConfig
from tuning.config import TuningConfig
from workflows import needs
from workflows.asks import frames, inference, serving, tuning


def wanted(run: Run, attempt: int, *, adapter: str = "") -> checks.Wanted:
    """What preflight has to find out for a Workspace; nothing of tuning where its `adapter` is known already."""
    workspace, settings = run.workspace, run.settings
    objects: list[tuple[clusters.Kind, dict[str, Any]]] = []
    chosen, warnings = inference.read(run)
    config = None
    if workspace.tuning and not adapter:
        config = tuning.config(run)
        warnings += tuning.warnings(workspace, settings, config)
        objects.append((clusters.JOB, jobs.manifest(workspace, tuning.task_of(run, attempt, config, run.placement()))))
    if workspace.serves:
        server = serving.expected(workspace, settings, chosen)
        objects += rollout.objects(workspace, settings, server, run.placement()).items()
    looks = [tuning.check_task(run, attempt, config)] if config else []
    if workspace.serves and (workspace.adapters or adapter):
        looks.append(serving.check_task(run, attempt, adapter))
    return checks.Wanted(
        objects=tuple(objects),
        demands=_demands(workspace, config, chosen),
        pull_secrets=frames.pull_secrets(workspace),
        volumes=volumes.named(workspace, tuned=bool(adapter)),
        checks=tuple(looks),
        warnings=(*warnings, *volumes.notes(workspace)),
    )


def _demands(workspace: Workspace, config: TuningConfig | None, chosen: InferenceConfig) -> tuple[sizing.Demand, ...]:
    if workspace.preset is None:
        return ()
    model = needs.as_loaded(presets.preset(workspace.preset_name), chosen)
    batch = needs.batch(config.training) if config else None
    return sizing.demands(workspace, model, batch, chosen.max_model_len or 0)
