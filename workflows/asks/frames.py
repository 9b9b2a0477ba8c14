"""What the asks of both images share: the small Job that looks before a GPU is bought, configs, Secrets."""

from typing import Any

import presets
from kaito_hera import cluster as clusters
from kaito_hera import jobs, names, pods, runtimes
from kaito_hera.api import Workspace
from kaito_hera.run import Run
from kaito_hera.settings import Settings
from serving.inference_config import InferenceConfig
from workflows import configs
from workflows.asks import models

FOLDER = "/etc/kaito/job"
CONFIG = f"{FOLDER}/config.json"
_CHECK_SECONDS = 120


def config_maps(run: Run) -> configs.Read:
    """The cluster's ConfigMaps."""

    def read(namespace: str, name: str) -> dict[str, str] | None:
        found = run.cluster.get(clusters.CONFIG_MAP, name, namespace)
        return None if found is None else found.get("data", {})

    return read


def inference(run: Run, found: presets.Preset | None = None) -> configs.Config[InferenceConfig]:
    """What is honoured of the user's inference_config.yaml as it is now; `found` is a model that was looked at."""
    runtime = runtimes.of(run.workspace, run.settings)
    return configs.inference(run.workspace, found or models.known(run.workspace), config_maps(run), runtime)


def require_gpu(settings: Settings) -> bool:
    """Whether an image ends where it cannot use the GPU; else it works on the CPU, slowly and at the GPU's price."""
    return settings.gpu_capability_check == "refuse"


def check_task(
    workspace: Workspace,
    settings: Settings,
    attempt: int,
    *,
    args: tuple[str, ...],
    mounts: tuple[pods.Mount, ...],
    env: tuple[dict[str, Any], ...],
    annotations: dict[str, str],
    second: bool = False,
) -> jobs.Task:
    """The small Job that looks at data and asks registries with an image's own code, on any node."""
    frame = pods.Frame(
        role="check",
        image=settings.image("operator"),
        args=(*args, CONFIG),
        mounts=mounts,
        env=env,
        limits={"memory": "1Gi"},  # a large tokenizer takes 0.4 of it, pages of a parquet file some of the rest
        requests={"cpu": "50m", "memory": "64Mi"},
        annotations=annotations,
    )
    template = pods.template(workspace, settings, frame)
    return jobs.Task(names.check_job(workspace, attempt, second=second), "check", attempt, template, _CHECK_SECONDS)


def pull_secrets(workspace: Workspace, *, data: bool = False) -> tuple[tuple[str, str], ...]:
    """Docker Secrets that are pulled with: the Workspace's field and the name in it; those for `data` only to tune."""
    named = [*models.secrets(workspace)]
    if data and workspace.tuning and workspace.tuning.input.image:
        given = workspace.tuning.input.image_pull_secrets
        named += [(f"tuning.input.imagePullSecrets[{nth}]", name) for nth, name in enumerate(given)]
    named += [
        (f"inference.adapters[{at}].source.imagePullSecrets[{nth}]", name)
        for at, adapter in enumerate(workspace.adapters)
        for nth, name in enumerate(adapter.source.image_pull_secrets)
    ]
    if workspace.tuning and workspace.tuning.output.image_push_secret:
        named.append(("tuning.output.imagePushSecret", workspace.tuning.output.image_push_secret))
    return tuple(named)
