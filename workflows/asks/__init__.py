"""What is asked of the two images for a Workspace: their configs, and the pods that run them.

The only place that knows both sides: the operator's Workspace and the images' own config models.
"""

import functools
from collections.abc import Callable
from typing import Any

import presets
from kaito_hera import checks, errors, jobs, loads, ownpod, rollout, runtimes, scratch, volumes
from kaito_hera import cluster as clusters
from kaito_hera.run import Run
from workflows import needs, trackers
from workflows.asks import frames, keys, models, serving, tuning


def wanted(run: Run, attempt: int, *, adapter: str = "") -> checks.Wanted:
    """What preflight has to find out for a Workspace; nothing of tuning where its `adapter` is known already."""
    workspace, settings = run.workspace, run.settings
    tunes = workspace.tuning is not None and not adapter
    asked: list[Callable[[Run], object]] = [
        models.pass_access,
        keys.pass_secret,
        frames.inference,
        *([tuning.training, scratch.look] if tunes else []),
    ]
    named = frames.pull_secrets(workspace, data=tunes)
    mounted = volumes.named(workspace, tuned=bool(adapter))
    errors.gather([*(functools.partial(look, run) for look in asked), *checks.looks(run, named, mounted)])
    objects: list[tuple[clusters.Kind, dict[str, Any]]] = []
    chosen = frames.inference(run)
    training = tuning.training(run) if tunes else None
    config = tuning.config_of(run, training) if training else None
    if config:
        objects.append((clusters.JOB, jobs.manifest(workspace, tuning.task_of(run, attempt, config, run.placement()))))
        objects += tuning.kept(run, attempt, config.training)
    if workspace.serves:
        server = serving.expected(workspace, settings, chosen.honoured, pinned=run.pinned, want=run.want)
        objects += rollout.objects(workspace, settings, server, run.placement()).items()
    looks = [tuning.check_task(run, attempt, config)] if config else []
    unseen = config is None and workspace.preset is not None and models.model(workspace).ask
    if workspace.serves and (workspace.adapters or adapter or unseen):
        looks.append(serving.check_task(run, attempt, adapter))
    return checks.Wanted(
        objects=tuple(objects),
        demands=needs.demands(
            workspace,
            models.known(workspace),
            config.training if config else None,
            chosen.honoured,
            runtimes.of(workspace, settings),
        ),
        pull_secrets=named,
        tokens=trackers.tokens(workspace, training.honoured) if training else (),
        checks=tuple(looks),
        warnings=(*chosen.warnings, *(training.warnings if training else ()), *ownpod.notes(workspace)),
    )


def demands(run: Run, found: presets.Preset, *, adapter: str = "") -> tuple[loads.Demand, ...]:
    """What a GPU must hold for a model of the hub, now that its numbers are `found`; raises why it cannot be used."""
    models.judged(run.workspace, run.settings, found)
    chosen = frames.inference(run, found).honoured
    training = tuning.training(run).honoured if run.workspace.tuning and not adapter else None
    return needs.demands(run.workspace, found, training, chosen, runtimes.of(run.workspace, run.settings))
