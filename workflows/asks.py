"""What is asked of the two images for a Workspace: their configs, and the pods that run them.

The only place that knows both sides: the operator's Workspace and the images' own config models.
"""

import hashlib
from typing import Any

import presets
from kaito_hera import checks, errors, intent, jobs, names, nodes, pods, rollout
from kaito_hera import cluster as clusters
from kaito_hera.api import Workspace
from kaito_hera.rollout import Server
from kaito_hera.run import Run
from kaito_hera.settings import Settings
from presets import memory
from serving import config as serving
from tuning import config as tuning
from tuning import training_config

_FOLDER = "/etc/kaito/job"
_CONFIG = f"{_FOLDER}/config.json"
_CHECK_SECONDS = 120


def wanted(run: Run, attempt: int) -> checks.Wanted:
    """What preflight has to find out for a Workspace."""
    workspace, settings = run.workspace, run.settings
    objects: list[tuple[clusters.Kind, dict[str, Any]]] = []
    gpu_gib: dict[str, float] = {}
    config = None
    if workspace.tuning:
        config = tuning_config(run)
        gpu_gib["tune"] = _tuning_gib(config)
        task = _tuning_task(run, attempt, config, run.placement())
        objects.append((clusters.JOB, jobs.manifest(workspace, task)))
    if workspace.serves:
        gpu_gib["serve"] = memory.serving_gib(presets.preset(workspace.preset_name))
        objects += rollout.objects(workspace, settings, _server(workspace, settings), run.placement()).items()
    checked = config or (workspace.inference and workspace.inference.adapters)
    return checks.Wanted(
        objects=tuple(objects),
        gpu_gib=gpu_gib,
        pull_secrets=_pull_secrets(workspace),
        check=_check_task(workspace, settings, attempt, config) if checked else None,
    )


def _tuning_gib(config: tuning.TuningConfig) -> float:
    """GiB on one GPU for what is asked; of the rows no more is known than that `max_length` cuts them."""
    asked = config.training.arguments
    return memory.tuning_gib(
        presets.preset(config.preset),
        config.method,
        tokens=asked.per_device_train_batch_size * asked.max_length,
        rank=config.training.lora.r,
        recompute=asked.activation_checkpointing is not False,
    )


def tuning_config(run: Run) -> tuning.TuningConfig:
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
        model=tuning.Model(id=model.hub_id, revision=model.revision),
        method=asked.method,
        training=training,
        input=tuning.Input(urls=asked.input.urls),
        output=tuning.Output(image=asked.output.image),
        intent=_mark(intent.of(workspace).tune, text if asked.config else ""),
        allowed_private_cidrs=settings.allowed_private_cidrs,
        require_gpu=_require_gpu(settings),
    )


def _mark(tune: str, config: str) -> str:
    """What the adapter is marked with in the registry: another text of the user's ConfigMap is another adapter."""
    return hashlib.sha256(f"{tune}\n{config}".encode()).hexdigest()[:16] if config else tune


def _require_gpu(settings: Settings) -> bool:
    """Whether an image ends where it cannot use the GPU; else it works on the CPU, slowly and at the GPU's price."""
    return settings.gpu_capability_check == "refuse"


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


def tuning_task(run: Run, attempt: int, placement: nodes.Placement) -> jobs.Task:
    """The tuning Job of an attempt, on the Workspace's nodes."""
    return _tuning_task(run, attempt, tuning_config(run), placement)


def _tuning_task(run: Run, attempt: int, config: tuning.TuningConfig, placement: nodes.Placement) -> jobs.Task:
    return jobs.Task(
        name=names.job(run.workspace, attempt),
        role="tuning",
        attempt=attempt,
        template=_tuning_template(run.workspace, run.settings, config, placement),
        seconds=run.settings.tuning_timeout_seconds,
    )


def _tuning_template(
    workspace: Workspace, settings: Settings, config: tuning.TuningConfig, placement: nodes.Placement
) -> dict[str, Any]:
    assert workspace.tuning is not None
    frame = pods.Frame(
        role="tuning",
        image=settings.image("tuning"),
        args=("tuning", _CONFIG),
        mounts=(
            pods.annotation_files(_FOLDER, {"config.json": names.CONFIG}),
            pods.secret_file("push", workspace.tuning.output.image_push_secret, str(tuning.PUSH_AUTH)),
            pods.scratch(str(tuning.SCRATCH)),
        ),
        limits={nodes.GPU: "1"},
        spec={**placement.pod_fields(), "terminationGracePeriodSeconds": 60},
        annotations={names.CONFIG: config.model_dump_json(exclude_defaults=True)},
    )
    return pods.template(workspace, settings, frame)


def _check_task(
    workspace: Workspace, settings: Settings, attempt: int, config: tuning.TuningConfig | None
) -> jobs.Task:
    """The small Job that looks at data and asks registries, on any node: for `config`, or for the adapters to serve."""
    if config:
        assert workspace.tuning is not None
        program, secret, auth = "tuning", workspace.tuning.output.image_push_secret, tuning.PUSH_AUTH
        files = {"config.json": names.CONFIG}
        annotations = {names.CONFIG: config.model_dump_json(exclude_defaults=True)}
    else:
        files_of = _server(workspace, settings).files
        program, secret, auth = "serving", rollout.registry_name(workspace), serving.REGISTRY_AUTH
        files = {"config.json": names.CONFIG, serving.ADAPTERS_FILE: names.ADAPTERS}
        annotations = dict(zip(files.values(), files_of.values(), strict=True))
    frame = pods.Frame(
        role="check",
        image=settings.image("operator"),
        args=(program, "--check", _CONFIG),
        mounts=(
            pods.annotation_files(_FOLDER, files),
            pods.secret_file("registry", secret, str(auth), optional=config is None),
        ),
        limits={"memory": "512Mi"},
        requests={"cpu": "50m", "memory": "64Mi"},
        annotations=annotations,
    )
    template = pods.template(workspace, settings, frame)
    return jobs.Task(names.check_job(workspace, attempt), "check", attempt, template, _CHECK_SECONDS)


def server(workspace: Workspace, settings: Settings, adapter: str) -> Server:
    """The server: the preset with the Workspace's adapters, or with the one that was tuned (`adapter`, by digest)."""
    if workspace.tuning and not adapter:
        raise errors.InternalError(
            f"roll-out of {workspace.key}: the adapter that it tuned is not known, and the base model must not be"
            " served in its place; please report this; deleting and applying the Workspace finds what was pushed"
        )
    return _server(workspace, settings, adapter)


def _server(workspace: Workspace, settings: Settings, adapter: str = "") -> Server:
    """The same while nothing is tuned yet: good enough to ask whether it may be made."""
    model = presets.preset(workspace.preset_name)
    config = serving.ServingConfig(
        workspace=workspace.key,
        name=model.name,
        model=serving.Model(id=model.hub_id, revision=model.revision),
        require_gpu=_require_gpu(settings),
    )
    adapters = _adapters(workspace, adapter)
    return Server(
        files={
            serving.CONFIG_FILE: config.model_dump_json(exclude_defaults=True),
            serving.ADAPTERS_FILE: serving.Adapters.dump_json(adapters).decode(),
        },
        hot=(serving.ADAPTERS_FILE,),
        pull_secrets=_pull_secrets(workspace),
        registry_auth=str(serving.REGISTRY_AUTH),
        scratch=str(serving.SCRATCH),
        port=config.port,
        lacks=lambda answer: serving.Served.model_validate(answer).lacks(adapters),
        refusals=lambda answer: _refusals(workspace, serving.Served.model_validate(answer).refused(adapters)),
    )


def _refusals(workspace: Workspace, refused: dict[int, serving.AdapterStatus]) -> dict[str, errors.KaitoError]:
    found: dict[str, errors.KaitoError] = {}
    for at, status in refused.items():
        field = "tuning.output.image" if workspace.tuning else f"inference.adapters[{at}].source.image"
        found[f"{status.name} {status.failures}"] = errors.AdapterRefusedError(
            f"{field}: adapter {status.name} of {status.image} cannot be served: {status.reason}; "
            f"name an image with a LoRA adapter for {workspace.preset_name}, or take the adapter out"
        )
    return found


def _adapters(workspace: Workspace, adapter: str) -> tuple[serving.Adapter, ...]:
    if workspace.inference:
        return tuple(
            serving.Adapter(name=a.source.name, image=a.source.image, strength=float(a.strength))
            for a in workspace.inference.adapters
        )
    return (serving.Adapter(name=workspace.metadata.name, image=adapter),) if adapter else ()


def _pull_secrets(workspace: Workspace) -> tuple[tuple[str, str], ...]:
    if workspace.tuning:
        return (("tuning.output.imagePushSecret", workspace.tuning.output.image_push_secret),)
    assert workspace.inference is not None
    return tuple(
        (f"inference.adapters[{at}].source.imagePullSecrets[{nth}]", name)
        for at, adapter in enumerate(workspace.inference.adapters)
        for nth, name in enumerate(adapter.source.image_pull_secrets)
    )
