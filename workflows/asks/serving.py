"""What is asked of the serving image: its config, its adapters, what its answers mean."""

import dataclasses
import hashlib
from typing import Any

from kaito_hera import errors, jobs, names, pods, rollout, runtimes, volumes
from kaito_hera.api import Workspace
from kaito_hera.api.sources import Volume
from kaito_hera.rollout import Server
from kaito_hera.run import Run
from kaito_hera.settings import Settings
from kaito_hera.status import Engine
from serving import config as serving
from serving.inference_config import InferenceConfig
from workflows.asks import frames, gpus, keys, models


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
    chosen = frames.inference(run).honoured
    return expected(workspace, run.settings, chosen, adapter=adapter, pinned=run.pinned, want=run.want)


def expected(
    workspace: Workspace,
    settings: Settings,
    chosen: InferenceConfig | None = None,
    *,
    adapter: str = "",
    pinned: str = "",
    want: gpus.Want | None = None,
) -> Server | None:
    """The same while nothing is tuned yet: good enough to ask whether it may be made, on the nodes that are wanted."""
    if workspace.preset is None:
        return None
    chosen = chosen or InferenceConfig()
    made = _of_preset(
        workspace,
        settings,
        chosen,
        adapter=adapter,
        pinned=pinned,
        nodes=gpus.over_nodes(workspace, settings, chosen, want),
    )
    return dataclasses.replace(made, whole=gpus.all_of_them(workspace, settings, chosen, want))


def _of_preset(
    workspace: Workspace,
    settings: Settings,
    chosen: InferenceConfig,
    *,
    adapter: str = "",
    pinned: str = "",
    nodes: int = 1,
) -> Server:
    runtime = runtimes.of(workspace, settings)
    config = serving.ServingConfig(
        workspace=workspace.key,
        name=chosen.served_model_name or models.served_name(workspace),
        model=models.model(workspace, pinned),
        require_gpu=frames.require_gpu(settings),
        context=chosen.max_model_len,
        dtype=chosen.dtype,
        chat_template=chosen.chat_template,
        tool_call_parser=chosen.tool_call_parser,
        runtime=runtime,
        vllm=_handed_on(workspace, chosen) if runtime == "vllm" else {},
        nodes=nodes,
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
        volumes=(*(_mount(name, volume) for name, volume in _volumes(workspace)), *_cache(workspace)),
        port=config.port,
        image=settings.vllm_image if runtime == "vllm" else "",
        nodes=nodes,
        application=serving.SEVERAL,
        mounts=(*models.mounts(workspace), *keys.mounts(workspace)),
        env=(*models.env(workspace, settings), *keys.env(workspace), *_cache_env(workspace)),
        key=keys.first(workspace),
        tells=lambda answer: _engine(serving.Served.model_validate(answer)),
        lacks=lambda answer: serving.Served.model_validate(answer).lacks(adapters),
        refusals=lambda answer: _refusals(workspace, serving.Served.model_validate(answer).refused(adapters)),
    )


def _handed_on(workspace: Workspace, chosen: InferenceConfig) -> dict[str, Any]:
    """Options of vLLM's; it has to be started for adapters, which takes memory and is not had for every model."""
    return {"enable_lora": runtimes.takes_adapters(workspace), **chosen.vllm}


def _refusals(workspace: Workspace, refused: dict[int, serving.AdapterStatus]) -> dict[str, errors.KaitoError]:
    found: dict[str, errors.KaitoError] = {}
    for at, status in refused.items():
        place = f"inference.adapters[{at}].source" if at < len(workspace.adapters) else "tuning.output"
        kind, field = ("image", "image") if status.image else ("volume", "volumeSource")
        found[f"{status.name} {status.failures}"] = errors.AdapterRefusedError(
            f"{place}.{field}: adapter {status.name} of {status.source} cannot be served: {status.reason}; "
            f"name {'an' if kind == 'image' else 'a'} {kind} with a LoRA adapter for {workspace.preset_name}, or take"
            " the adapter out"
        )
    return found


def _engine(served: serving.Served) -> Engine | None:
    """Its words are cut, not refused: they are for people."""
    found = served.engine
    if found is None:
        return None
    notes = tuple(note[:1000] for note in found.notes[:10])
    return Engine(concurrent_requests=found.concurrent_requests, context=found.context, notes=notes)


def _adapters(workspace: Workspace, adapter: str) -> tuple[serving.Adapter, ...]:
    """The user's, then the one that was tuned."""
    listed = tuple(
        _adapter(a.source.name, a.source.image or a.source.volume_source, float(a.strength)) for a in workspace.adapters
    )
    if not adapter:
        return listed
    assert workspace.tuning is not None
    name, on_volume = workspace.metadata.name, workspace.tuning.output.volume_source is not None
    tuned = serving.Adapter(name=name, volume=adapter, folder=_folder(name)) if on_volume else _adapter(name, adapter)
    return (*listed, tuned)


def _adapter(name: str, source: Volume | str | None, strength: float = 1.0) -> serving.Adapter:
    if isinstance(source, Volume):
        return serving.Adapter(name=name, volume=source.label, folder=_folder(name), strength=strength)
    return serving.Adapter(name=name, image=source or "", strength=strength)


def _volumes(workspace: Workspace) -> list[tuple[str, Volume]]:
    """Volumes with adapters by the adapters' names, in an order that does not change with the list's."""
    found = [(a.source.name, a.source.volume_source) for a in workspace.adapters]
    if workspace.tuning:
        found.append((workspace.metadata.name, workspace.tuning.output.volume_source))
    return sorted(((name, volume) for name, volume in found if volume), key=lambda named: named[0])


def _cache(workspace: Workspace) -> tuple[pods.Mount, ...]:
    """The claim that keeps weights; without one they die with the pod."""
    claim = volumes.cache(workspace)
    return (volumes.mount("cache", str(serving.CACHE), claim, writes=True),) if claim else ()


def _cache_env(workspace: Workspace) -> tuple[dict[str, str], ...]:
    return ({"name": "CACHE", "value": str(serving.CACHE)},) if _cache(workspace) else ()


def _folder(name: str) -> str:
    """Where an adapter's volume is mounted."""
    return f"/mnt/adapters/{name}"


def _mount(name: str, volume: Volume) -> pods.Mount:
    return volumes.mount(f"adapter-{hashlib.sha256(name.encode()).hexdigest()[:12]}", _folder(name), volume)


def check_task(run: Run, attempt: int, adapter: str = "") -> jobs.Task:
    """The look at model and adapters before a GPU is bought, the tuned one (`adapter`) among them once it is there."""
    workspace = run.workspace
    files_of = _of_preset(workspace, run.settings, InferenceConfig(), adapter=adapter, pinned=run.pinned).files
    lookable = [
        _mount(name, volume)
        for name, volume in _volumes(workspace)
        if (adapter or name != workspace.metadata.name) and volumes.may_look(run.cluster, workspace, volume)
    ]
    files = {"config.json": names.CONFIG, serving.ADAPTERS_FILE: names.ADAPTERS}
    secret = pods.secret_file("registry", rollout.registry_name(workspace), str(serving.REGISTRY_AUTH), optional=True)
    return frames.check_task(
        workspace,
        run.settings,
        attempt,
        args=("serving", "--check"),
        mounts=(pods.annotation_files(frames.FOLDER, files), secret, *models.mounts(workspace), *lookable),
        env=models.env(workspace, run.settings),
        annotations=dict(zip(files.values(), files_of.values(), strict=True)),
        second=workspace.tuning is not None,
    )
