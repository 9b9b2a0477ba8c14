"""What is asked of the serving image: its config, its adapters, what its answers mean."""

import presets
from kaito_hera import errors, jobs, names, pods, rollout
from kaito_hera.api import Workspace
from kaito_hera.rollout import Server
from kaito_hera.run import Run
from kaito_hera.settings import Settings
from serving import config as serving
from serving.inference_config import InferenceConfig
from workflows.asks import frames, inference


def server(run: Run, adapter: str) -> Server | None:
    """The server: the preset with the Workspace's adapters, or with the one that was tuned (`adapter`, by digest).

    None where the user brings a pod of his own. Reads the user's inference_config.yaml as it is now.
    """
    workspace = run.workspace
    if workspace.tuning and not adapter:
        raise errors.InternalError(
            f"roll-out of {workspace.key}: the adapter that it tuned is not known, and the base model must not be"
            " served in its place; please report this; deleting and applying the Workspace finds what was pushed"
        )
    chosen, _ = inference.read(run)
    return expected(workspace, run.settings, chosen, adapter=adapter)


def expected(
    workspace: Workspace, settings: Settings, chosen: InferenceConfig | None = None, *, adapter: str = ""
) -> Server | None:
    """The same while nothing is tuned yet: good enough to ask whether it may be made."""
    if workspace.preset is None:
        return None
    return _of_preset(workspace, settings, chosen or InferenceConfig(), adapter)


def _of_preset(workspace: Workspace, settings: Settings, chosen: InferenceConfig, adapter: str) -> Server:
    model = presets.preset(workspace.preset_name)
    config = serving.ServingConfig(
        workspace=workspace.key,
        name=chosen.served_model_name or model.name,
        model=serving.Model(id=model.hub_id, revision=model.hub_revision),
        require_gpu=frames.require_gpu(settings),
        context=chosen.max_model_len,
        dtype=chosen.dtype,
        chat_template=chosen.chat_template,
    )
    adapters = _adapters(workspace, adapter)
    return Server(
        files={
            serving.CONFIG_FILE: config.model_dump_json(exclude_defaults=True),
            serving.ADAPTERS_FILE: serving.Adapters.dump_json(adapters).decode(),
        },
        hot=(serving.ADAPTERS_FILE,),
        pull_secrets=frames.pull_secrets(workspace),
        registry_auth=str(serving.REGISTRY_AUTH),
        scratch=str(serving.SCRATCH),
        port=config.port,
        lacks=lambda answer: serving.Served.model_validate(answer).lacks(adapters),
        refusals=lambda answer: _refusals(workspace, serving.Served.model_validate(answer).refused(adapters)),
    )


def _refusals(workspace: Workspace, refused: dict[int, serving.AdapterStatus]) -> dict[str, errors.KaitoError]:
    found: dict[str, errors.KaitoError] = {}
    for at, status in refused.items():
        listed = at < len(workspace.adapters)
        field = f"inference.adapters[{at}].source.image" if listed else "tuning.output.image"
        found[f"{status.name} {status.failures}"] = errors.AdapterRefusedError(
            f"{field}: adapter {status.name} of {status.image} cannot be served: {status.reason}; "
            f"name an image with a LoRA adapter for {workspace.preset_name}, or take the adapter out"
        )
    return found


def _adapters(workspace: Workspace, adapter: str) -> tuple[serving.Adapter, ...]:
    """The user's, then the one that was tuned."""
    listed = tuple(
        serving.Adapter(name=a.source.name, image=a.source.image or "", strength=float(a.strength))
        for a in workspace.adapters
    )
    return (*listed, serving.Adapter(name=workspace.metadata.name, image=adapter)) if adapter else listed


def check_task(run: Run, attempt: int) -> jobs.Task:
    """The look at the adapters' registries before a GPU is bought."""
    workspace = run.workspace
    files_of = _of_preset(workspace, run.settings, InferenceConfig(), "").files
    files = {"config.json": names.CONFIG, serving.ADAPTERS_FILE: names.ADAPTERS}
    secret = pods.secret_file("registry", rollout.registry_name(workspace), str(serving.REGISTRY_AUTH), optional=True)
    return frames.check_task(
        workspace,
        run.settings,
        attempt,
        program="serving",
        mounts=(pods.annotation_files(frames.FOLDER, files), secret),
        annotations=dict(zip(files.values(), files_of.values(), strict=True)),
    )
