"""What is asked of the tuning image: its config from Workspace and ConfigMap, its Job, its check."""

import contextlib
import hashlib
from typing import Any

from kaito_hera import cluster as clusters
from kaito_hera import errors, held, inherited, intent, jobs, names, nodes, pods, rollout, scratch, volumes
from kaito_hera.api import Workspace
from kaito_hera.api.sources import Volume
from kaito_hera.run import Run
from kaito_hera.settings import Settings
from tuning import config as tuning
from tuning.training_config import TrainingConfig
from workflows import configs, needs, trackers
from workflows.asks import frames, models

_SCRAPED = {
    "prometheus.io/scrape": "true",
    "prometheus.io/port": str(tuning.METRICS_PORT),
    "prometheus.io/path": "/metrics",
}
"""For a Prometheus that finds pods by annotations; one that has an operator takes a PodMonitor."""


def config(run: Run) -> tuning.TuningConfig:
    """The tuning run, its training_config as the ConfigMap has it now."""
    return config_of(run, training(run))


def training(run: Run) -> configs.Config[TrainingConfig]:
    """The training_config of the user's ConfigMap or the operator's template."""
    return configs.training(run.workspace, run.settings, frames.config_maps(run))


def config_of(run: Run, found: configs.Config[TrainingConfig]) -> tuning.TuningConfig:
    """The tuning run with a training_config that was read already."""
    workspace, settings = run.workspace, run.settings
    asked = workspace.tuning
    assert asked is not None
    return tuning.TuningConfig(
        workspace=workspace.key,
        preset=models.name(workspace),
        model=models.model(workspace, run.pinned),
        method=asked.method,
        training=found.honoured,
        input=tuning.Input(
            urls=asked.input.urls,
            image=asked.input.image or "",
            volume=_label(asked.input.volume_source),
            commits=run.commits,
        ),
        output=tuning.Output(image=asked.output.image or "", volume=_label(asked.output.volume_source)),
        intent=_mark(intent.of(workspace).tune, found.text if asked.config else ""),
        allowed_private_cidrs=settings.allowed_private_cidrs,
        require_gpu=frames.require_gpu(settings),
        metrics_port=tuning.METRICS_PORT,
        checkpoint_seconds=asked.checkpoint_seconds,
        push_seconds=settings.push_timeout_seconds,
    )


def _label(volume: Volume | None) -> str:
    return volume.label if volume else ""


def _mark(tune: str, config: str) -> str:
    """What the adapter is marked with in the registry: another text of the user's ConfigMap is another adapter."""
    return hashlib.sha256(f"{tune}\n{config}".encode()).hexdigest()[:16] if config else tune


def task(run: Run, attempt: int, placement: nodes.Placement) -> jobs.Task:
    """The tuning Job of an attempt, on the Workspace's nodes."""
    return task_of(run, attempt, config(run), placement)


def task_of(run: Run, attempt: int, asked: tuning.TuningConfig, placement: nodes.Placement) -> jobs.Task:
    """The same for a config that is known already."""
    workspace, settings = run.workspace, run.settings
    assert workspace.tuning is not None
    if settings.node_provider != "byo":
        price = held.usd_per_hour(run.want.candidate, workspace.node_count, settings.region)
        asked = asked.model_copy(update={"usd_per_hour": price})
    if intent.scratch(workspace, settings):
        asked = asked.model_copy(update={"output": tuning.Output(volume=scratch.volume(workspace).label)})
    return jobs.Task(
        name=names.job(workspace, attempt),
        role="tuning",
        attempt=attempt,
        template=_template(workspace, settings, asked, placement),
        seconds=workspace.tuning.active_deadline_seconds or settings.tuning_timeout_seconds,
    )


def keep(run: Run) -> None:
    """Have a volume for what is trained, where there is to be one, and none that is not used any more."""
    if intent.scratch(run.workspace, run.settings):
        scratch.ensure(run, scratch_gib(run, training(run).honoured))
        return
    with contextlib.suppress(errors.ForbiddenError):  # by an older role, of before there were any
        scratch.clear(run)


def scratch_gib(run: Run, training: TrainingConfig) -> int:
    """How large a volume for what is trained has to be."""
    return needs.scratch_gib(models.known(run.workspace), training)


def kept(run: Run, attempt: int, training: TrainingConfig) -> list[tuple[clusters.Kind, dict[str, Any]]]:
    """What is made for a volume of what is trained: the claim, and later the Job that pushes."""
    if not intent.scratch(run.workspace, run.settings):
        return []
    claim = scratch.claim(run.workspace, run.settings, scratch_gib(run, training))
    later = jobs.manifest(run.workspace, push_task(run, attempt, run.placement()))
    return [(clusters.CLAIM, claim), (clusters.JOB, later)]


def renewed(run: Run) -> tuple[str, ...]:
    """The mark of what waits on the volume, and the one to push it with; empty where they are one, or nobody can say.

    They differ where the image's place was edited: whoever applies the edited Workspace anew shall find its adapter.
    """
    was, now = scratch.made_for(run), intent.of(run.workspace).tune
    if was in {"", now}:
        return ()
    try:
        config = training(run).text if run.workspace.tuning and run.workspace.tuning.config else ""
    except (errors.ConfigMapNotFoundError, errors.ConfigInvalidError):
        return ()
    return _mark(was, config), _mark(now, config)


def push_task(
    run: Run, attempt: int, placement: nodes.Placement, *, hurried: bool = False, renewed: tuple[str, ...] = ()
) -> jobs.Task:
    """The Job without GPUs that pushes the adapter from a volume of ours, in the operator's image, which can do it."""
    workspace, settings = run.workspace, run.settings
    assert workspace.tuning is not None
    output = workspace.tuning.output
    patience = scratch.HURRY_SECONDS if hurried else settings.push_timeout_seconds
    how: tuple[str, ...] = ("--push-auth", str(tuning.PUSH_AUTH), "--seconds", str(patience), "--progress")
    how += ("--renew", *renewed) if renewed else ()
    frame = pods.Frame(
        role="push",
        image=settings.image("operator"),
        args=("tuning", "push", str(tuning.RESULTS), output.image or "", *how),
        mounts=(_push_secret(workspace), volumes.mount("results", str(tuning.RESULTS), scratch.volume(workspace))),
        env=({"name": "TERMINATION_LOG", "value": "/dev/termination-log"},),
        limits={"memory": "1Gi"},
        requests={"cpu": "50m", "memory": "64Mi"},
        spec={**placement.elsewhere(), "terminationGracePeriodSeconds": tuning.GRACE_SECONDS},
    )
    start = scratch.START_SECONDS if hurried else settings.start_timeout_seconds
    template = pods.template(workspace, settings, frame)
    return jobs.Task(names.push_job(workspace, attempt), "push", attempt, template, patience + start)


def _template(
    workspace: Workspace, settings: Settings, asked: tuning.TuningConfig, placement: nodes.Placement
) -> dict[str, Any]:
    assert workspace.tuning is not None
    kept = intent.scratch(workspace, settings)
    results = scratch.volume(workspace) if kept else workspace.tuning.output.volume_source
    frame = pods.Frame(
        role="tuning",
        image=settings.image("tuning"),
        args=("tuning", "run", frames.CONFIG),
        mounts=(
            *_files(workspace, pushes=not kept),
            *_volumes(workspace.tuning.input.volume_source, results),
            pods.scratch(str(tuning.SCRATCH)),
            *exchange(placement),
        ),
        env=(*models.env(workspace, settings), *trackers.env(workspace, asked.training)),
        limits=placement.all_limits,
        spec={**placement.pod_fields(), "terminationGracePeriodSeconds": tuning.GRACE_SECONDS},
        container={"ports": [{"name": "metrics", "containerPort": tuning.METRICS_PORT}]},
        annotations={names.CONFIG: asked.model_dump_json(exclude_defaults=True)} | _SCRAPED,
    )
    return pods.template(workspace, settings, frame)


def _files(workspace: Workspace, *, pushes: bool = True) -> list[pods.Mount]:
    """The config, and the Secrets that it needs: one to push with, those to pull with in one, the hub's token."""
    assert workspace.tuning is not None
    mounts = [pods.annotation_files(frames.FOLDER, {"config.json": names.CONFIG})]
    if workspace.tuning.output.image and pushes:
        mounts.append(_push_secret(workspace))
    pull = pods.secret_file("pull", rollout.registry_name(workspace), str(tuning.PULL_AUTH), optional=True)
    return [*mounts, pull, *models.mounts(workspace)]


def _push_secret(workspace: Workspace) -> pods.Mount:
    assert workspace.tuning is not None
    return pods.secret_file("push", workspace.tuning.output.image_push_secret or "", str(tuning.PUSH_AUTH))


def _volumes(data: Volume | None, results: Volume | None) -> list[pods.Mount]:
    mounts = [volumes.mount("data", str(tuning.DATA), data)] if data else []
    return [*mounts, *([volumes.mount("results", str(tuning.RESULTS), results, writes=True)] if results else [])]


def exchange(placement: nodes.Placement) -> list[pods.Mount]:
    """What several GPUs of a pod need to work together."""
    return [pods.shared_memory()] if any(int(number) > 1 for number in placement.all_limits.values()) else []


def check_task(run: Run, attempt: int, asked: tuning.TuningConfig) -> jobs.Task:
    """The look at data and at where the adapter goes, before a GPU is bought."""
    assert run.workspace.tuning is not None
    named = (run.workspace.tuning.input.volume_source, run.workspace.tuning.output.volume_source)
    if inherited.has_tuned(run.cluster, run.workspace):
        asked = asked.model_copy(update={"intent": ""})  # KAITO marks nothing with an intent: its image is the adapter
    data, results = (each if volumes.may_look(run.cluster, run.workspace, each) else None for each in named)
    return frames.check_task(
        run.workspace,
        run.settings,
        attempt,
        args=("tuning", "validate"),
        mounts=(*_files(run.workspace), *_volumes(data, results)),
        env=models.env(run.workspace, run.settings),
        annotations={names.CONFIG: asked.model_dump_json(exclude_defaults=True)},
    )
