"""Which engine serves a Workspace's model: ours, or vLLM's where an annotation wants it and its image is there. Pure.

The operator knows it by the setting `vllmImage`: whoever has not built that image keeps KAITO's manifests working,
since our engine serves both APIs.
"""

from typing import Literal

import presets
from kaito_hera import errors, models
from kaito_hera.api import Workspace, annotations
from kaito_hera.findings import Finding
from kaito_hera.settings import Settings

Runtime = Literal["transformers", "vllm"]
FIELD = f"metadata.annotations[{annotations.RUNTIME}]"
WITHOUT_ADAPTERS = "vLLM serves it without adapters"
"""As the models' files say it."""
_BUILD = 'let the platform team build it (make images ROLES="... serving-vllm") and name it in the setting vllmImage'


def of(workspace: Workspace, settings: Settings) -> Runtime:
    """Whose engine it is, or would be."""
    return "vllm" if wants_vllm(workspace) and settings.vllm_image else "transformers"


def wants_vllm(workspace: Workspace) -> bool:
    """Whether the annotation asks for vLLM."""
    return workspace.annotation(annotations.RUNTIME) == "vllm"


def takes_adapters(workspace: Workspace) -> bool:
    """Whether vLLM is started for adapters, unless the config of the server says otherwise."""
    return bool(workspace.adapters) or workspace.tuning is not None


def may_spread(workspace: Workspace) -> bool:
    """Whether several nodes may hold its model together.

    By vLLM, on whole GPUs, without adapters: their files are where the requests come in, and not on the other nodes.
    The numbers of a model that no file here describes are not known when the server is made.
    """
    if takes_adapters(workspace) or models.find(workspace) is None:
        return False
    return wants_vllm(workspace) and not _takes_slices(workspace)


def _takes_slices(workspace: Workspace) -> bool:
    """Whether a node has part of a card, which nothing joins with another part: cut by MIG, or sold so."""
    resource = workspace.resource
    return bool(resource.partition and resource.partition.profile) or any(map(_is_slice, resource.sizes))


def _is_slice(size: str) -> bool:
    try:
        return presets.size(size).slice < 1
    except presets.UnknownNameError:
        return False


def nodes(workspace: Workspace, runtime: Runtime) -> int:
    """So many nodes may."""
    return workspace.node_count if runtime == "vllm" and may_spread(workspace) else 1


def heeded(workspace: Workspace, settings: Settings) -> Workspace:
    """The Workspace without the annotation where it has no effect: there it is no edit, and restarts no server.

    So an upgrade changes nothing of what KAITO's users annotated, and the engine is another one as soon as there is an
    image with vLLM, not at some later edit of something else.
    """
    metadata = workspace.metadata
    effective = workspace.serves and workspace.preset is not None and of(workspace, settings) == "vllm"
    if annotations.RUNTIME not in metadata.annotations or effective:
        return workspace
    rest = {key: value for key, value in metadata.annotations.items() if key != annotations.RUNTIME}
    return workspace.model_copy(update={"metadata": metadata.model_copy(update={"annotations": rest})})


def judged(workspace: Workspace, settings: Settings, model: presets.Preset) -> list[Finding]:
    """What speaks against serving this model by the engine that is asked for."""
    error, served = errors.PresetNotServableError, workspace.serves and workspace.preset is not None
    if not served or not wants_vllm(workspace):
        return []
    if "vllm" not in model.runtimes:
        return [Finding(error, FIELD, f"{model.name} is not served by vLLM", "take the annotation out")]
    if takes_adapters(workspace) and WITHOUT_ADAPTERS in model.limits:
        return [Finding(error, FIELD, f"{model.name}: {WITHOUT_ADAPTERS}", "take the annotation out, or the adapters")]
    if not settings.vllm_image and "transformers" not in model.runtimes:
        return [Finding(error, FIELD, f"there is no image with vLLM here, and {model.name} needs it", _BUILD)]
    return []


def findings(workspace: Workspace, settings: Settings, model: presets.Preset | None) -> list[Finding]:
    """All that is said of the annotation, or of its absence where a model is served slowly without it."""
    found = judged(workspace, settings, model) if model else []
    if found or not workspace.serves or workspace.preset is None:
        idle = wants_vllm(workspace) and not found
        why = "a pod of your own brings its own engine" if workspace.serves else "nothing is served"
        return [_note(f"has no effect: {why}")] if idle else found
    if wants_vllm(workspace) and not settings.vllm_image:
        return [_note("has no effect: there is no image with vLLM here (setting vllmImage); the engine here serves it")]
    slow = model is not None and not wants_vllm(workspace) and model.architecture not in presets.batched()
    if model and slow and {"transformers", "vllm"} <= set(model.runtimes):
        text = f"is missing, and the engine here answers one request of {model.name} at a time"
        return [_note(text, "write vllm: it answers many, where the platform team has its image (setting vllmImage)")]
    return []


def _note(text: str, remedy: str = "") -> Finding:
    return Finding(errors.PresetNotServableError, FIELD, text, remedy, fatal=False)
