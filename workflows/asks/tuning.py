"""What is asked of the tuning image: its config from Workspace and ConfigMap, its Job, its check."""

import hashlib
from typing import Any

import presets
from kaito_hera import checks, errors, intent, jobs, names, nodes, pods
from kaito_hera import cluster as clusters
from kaito_hera.api import Workspace
from kaito_hera.run import Run
from kaito_hera.settings import Settings
from tuning import config as tuning
from tuning import training_config
from workflows.asks import frames


def config(run: Run) -> tuning.TuningConfig:
    """The tuning run, its training_config read from the user's ConfigMap or the operator's template."""
    workspace, settings = run.workspace, run.settings
    asked = workspace.tuning
    assert asked is not None
    model = presets.preset(asked.preset.name)
    text, field = _training_text(run.cluster, workspace, settings)
    try:
        training = training_config.parse(text, asked.method)
    except ValueError as cause:
        raise errors.ConfigInvalidError(f"{field}: {cause}") from cause
    return tuning.TuningConfig(
        workspace=workspace.key,
        preset=model.name,
        model=tuning.Model(id=model.hub_id, revision=model.hub_revision),
        method=asked.method,
        training=training,
        input=tuning.Input(urls=asked.input.urls),
        output=tuning.Output(image=asked.output.image or ""),
        intent=_mark(intent.of(workspace).tune, text if asked.config else ""),
        allowed_private_cidrs=settings.allowed_private_cidrs,
        require_gpu=frames.require_gpu(settings),
    )


def _mark(tune: str, config: str) -> str:
    """What the adapter is marked with in the registry: another text of the user's ConfigMap is another adapter."""
    return hashlib.sha256(f"{tune}\n{config}".encode()).hexdigest()[:16] if config else tune


def _training_text(cluster: clusters.Cluster, workspace: Workspace, settings: Settings) -> tuple[str, str]:
    asked = workspace.tuning
    assert asked is not None
    if asked.config:
        namespace, name, field = workspace.metadata.namespace, asked.config, "tuning.config"
    else:
        namespace, name = settings.namespace, f"{asked.method}-params-template"
        field = f"the operator's ConfigMap {namespace}/{name}"
        if cluster.get(clusters.CONFIG_MAP, name, namespace) is None:
            return "training_config: {}", field  # the tuning image's own defaults
    return checks.config_map(cluster, namespace, name, key="training_config.yaml", field=field), field


def task(run: Run, attempt: int, placement: nodes.Placement) -> jobs.Task:
    """The tuning Job of an attempt, on the Workspace's nodes."""
    return task_of(run, attempt, config(run), placement)


def task_of(run: Run, attempt: int, asked: tuning.TuningConfig, placement: nodes.Placement) -> jobs.Task:
    """The same for a config that is known already."""
    assert run.workspace.tuning is not None
    return jobs.Task(
        name=names.job(run.workspace, attempt),
        role="tuning",
        attempt=attempt,
        template=_template(run.workspace, run.settings, asked, placement),
        seconds=run.workspace.tuning.active_deadline_seconds or run.settings.tuning_timeout_seconds,
    )


def _template(
    workspace: Workspace, settings: Settings, asked: tuning.TuningConfig, placement: nodes.Placement
) -> dict[str, Any]:
    assert workspace.tuning is not None
    frame = pods.Frame(
        role="tuning",
        image=settings.image("tuning"),
        args=("tuning", frames.CONFIG),
        mounts=(
            pods.annotation_files(frames.FOLDER, {"config.json": names.CONFIG}),
            pods.secret_file("push", workspace.tuning.output.image_push_secret or "", str(tuning.PUSH_AUTH)),
            pods.scratch(str(tuning.SCRATCH)),
        ),
        limits=placement.limits,
        spec={**placement.pod_fields(), "terminationGracePeriodSeconds": 60},
        annotations={names.CONFIG: asked.model_dump_json(exclude_defaults=True)},
    )
    return pods.template(workspace, settings, frame)


def check_task(run: Run, attempt: int, asked: tuning.TuningConfig) -> jobs.Task:
    """The look at data and registry before a GPU is bought."""
    assert run.workspace.tuning is not None
    return frames.check_task(
        run.workspace,
        run.settings,
        attempt,
        program="tuning",
        mounts=(
            pods.annotation_files(frames.FOLDER, {"config.json": names.CONFIG}),
            pods.secret_file("registry", run.workspace.tuning.output.image_push_secret or "", str(tuning.PUSH_AUTH)),
        ),
        annotations={names.CONFIG: asked.model_dump_json(exclude_defaults=True)},
    )
