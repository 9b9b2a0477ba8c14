"""What is asked of the two images for a Workspace: their configs, and the pods that run them.

The only place that knows both sides: the operator's Workspace and the images' own config models.
"""

from typing import Any

import presets
from kaito_hera import checks, jobs, ownpod, rollout, sizing, volumes
from kaito_hera import cluster as clusters
from kaito_hera.api import Workspace
from kaito_hera.run import Run
from serving.inference_config import InferenceConfig
from tuning.config import TuningConfig
from workflows import needs
from workflows.asks import frames, inference, models, serving, tuning


def wanted(run: Run, attempt: int, *, adapter: str = "") -> checks.Wanted:
    """What preflight has to find out for a Workspace; nothing of tuning where its `adapter` is known already."""
    workspace, settings = run.workspace, run.settings
    models.pass_access(run)
    objects: list[tuple[clusters.Kind, dict[str, Any]]] = []
    chosen, warnings = inference.read(run)
    config = None
    if workspace.tuning and not adapter:
        config = tuning.config(run)
        warnings += tuning.warnings(workspace, settings, config)
        objects.append((clusters.JOB, jobs.manifest(workspace, tuning.task_of(run, attempt, config, run.placement()))))
    if workspace.serves:
        server = serving.expected(workspace, settings, chosen, pinned=run.pinned)
        objects += rollout.objects(workspace, settings, server, run.placement()).items()
    looks = [tuning.check_task(run, attempt, config)] if config else []
    unseen = config is None and workspace.preset is not None and models.model(workspace).ask
    if workspace.serves and (workspace.adapters or adapter or unseen):
        looks.append(serving.check_task(run, attempt, adapter))
    return checks.Wanted(
        objects=tuple(objects),
        demands=_demands(workspace, _known(workspace), config, chosen),
        pull_secrets=frames.pull_secrets(workspace, data=config is not None),
        volumes=volumes.named(workspace, tuned=bool(adapter)),
        checks=tuple(looks),
        warnings=(*warnings, *ownpod.notes(workspace)),
    )


def demands(run: Run, found: presets.Preset, *, adapter: str = "") -> tuple[sizing.Demand, ...]:
    """What a GPU must hold for a model of the hub, now that its numbers are `found`; raises why it cannot be used."""
    models.judged(run.workspace, found)
    chosen, _ = inference.read(run, found)
    config = tuning.config(run) if run.workspace.tuning and not adapter else None
    return _demands(run.workspace, found, config, chosen)


def _known(workspace: Workspace) -> presets.Preset | None:
    return models.known(workspace) if workspace.preset else None


def _demands(
    workspace: Workspace, found: presets.Preset | None, config: TuningConfig | None, chosen: InferenceConfig
) -> tuple[sizing.Demand, ...]:
    if found is None:
        return ()
    model = needs.as_loaded(found, chosen)
    batch = needs.batch(config.training) if config else None
    return sizing.demands(workspace, model, batch, chosen.max_model_len or 0)
