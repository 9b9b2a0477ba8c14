"""What is served: a preset or the user's own pod, with adapters."""

import json
from typing import Annotated, Any, Literal

import pydantic

from kaito_hera.api.base import Free, Image, MaybeName, Model, Name, Rule, Seconds, Spelled
from kaito_hera.api.sources import AdapterSource

_STRENGTH = r"\+?(0*\.[0-9]+|0+\.?|0*1(\.0*)?|[0-9](\.[0-9]+)?[eE]-0*[1-9][0-9]*)"
"""Every way to write a decimal number from 0 to 1 that KAITO's parser takes and people use."""


class PresetOptions(Model):
    """Where the weights come from if not from the public hub."""

    image: Image | None = None
    """An OCI image that holds the model's files, see `kaito-hera model push`."""
    image_pull_secrets: Annotated[tuple[Name, ...], pydantic.Field(max_length=10)] = ()
    """Secrets of type kubernetes.io/dockerconfigjson in the Workspace's namespace, for image."""
    model_access_secret: MaybeName | None = None
    """A Secret in the Workspace's namespace with a key HF_TOKEN, for models that the hub gives to some only."""


class Preset(Model):
    """A model that kaito-hera knows, or any model of the Hugging Face hub."""

    rules = (
        Rule(
            "!has(self.accessMode) || self.accessMode != 'private'"
            " || (has(self.presetOptions) && has(self.presetOptions.image) && self.presetOptions.image != '')",
            "accessMode private needs presetOptions.image: the image that holds the model's files",
            lambda p: p.access_mode != "private" or bool(p.options.image),
        ),
    )

    name: Annotated[
        str,
        pydantic.StringConstraints(min_length=1, max_length=253),
        Spelled(
            "[A-Za-z0-9]([-A-Za-z0-9._/]*[A-Za-z0-9])?",
            "write a preset's name (`kaito-hera presets` lists them), or ORGANISATION/MODEL of the hub, no address",
        ),
    ]
    """Name of the preset (`kaito-hera presets` lists them), or ORG/MODEL of the Hugging Face hub."""
    access_mode: Literal["public", "private"] | None = None
    """private: the weights are in presetOptions.image. Kept for KAITO's manifests; naming an image is enough."""
    preset_options: PresetOptions | None = None
    """Where the weights come from if not from the public hub."""

    @property
    def options(self) -> PresetOptions:
        """The options, given or not."""
        return self.preset_options or PresetOptions()


class Adapter(Model):
    """A LoRA adapter added to the served model."""

    source: AdapterSource
    """Where the adapter comes from."""
    strength: Annotated[
        str, pydantic.StringConstraints(max_length=16), Spelled(_STRENGTH, 'write a number from "0" to "1", in quotes')
    ] = "1.0"
    """How much of the adapter is added, from "0.0" (nothing) to "1.0" (all of it, the default)."""


def _distinct(adapters: tuple[Adapter, ...]) -> tuple[Adapter, ...]:
    names = [adapter.source.name for adapter in adapters]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"each adapter needs a source.name of its own, {twice!r} is there twice")
    return adapters


_UNIQUE = Rule(
    "self.all(a, self.exists_one(b, b.source.name == a.source.name))",
    "each adapter needs a source.name of its own",
)


_ROOM = 100_000


def _portable(template: dict[str, Any] | None) -> dict[str, Any] | None:
    """A step gets the Workspace as an argument, twice and in quotes, and a process takes 128 KiB in one."""
    once = json.dumps(json.dumps(template))
    if template and (size := len(once) + len(json.dumps(once))) > _ROOM:
        raise ValueError(
            f"the pod template is too large, {size:,} bytes as it travels of {_ROOM:,}; put long texts into a"
            " ConfigMap of your own and mount it"
        )
    return template


class Inference(Model):
    """Serve a model: a preset, or a pod of your own."""

    rules = (
        Rule(
            "has(self.preset) != has(self.template)",
            "give preset (a model) or template (a pod of your own that serves on port 5000), exactly one of them",
            lambda i: (i.preset is None) != (i.template is None),
        ),
        Rule(
            "has(oldSelf.preset) == has(self.preset) && (!has(self.preset) || self.preset.name == oldSelf.preset.name)",
            "preset.name cannot be changed, nor preset and template exchanged: delete the Workspace and apply it anew",
        ),
        Rule(
            "!has(self.template) || !has(self.adapters) || size(self.adapters) == 0",
            "adapters need a preset: a pod of your own (template) loads its own",
            lambda i: i.template is None or not i.adapters,
        ),
    )

    preset: Preset | None = None
    """The model to serve."""
    template: Annotated[Free | None, pydantic.AfterValidator(_portable)] = None
    """A pod template of your own (metadata and spec, as in a Deployment) that answers on port 5000.

    It is kept as it is written, on the nodes of resource; where no container asks for a GPU the first gets a node's.
    """
    config: MaybeName | None = None
    """ConfigMap in the Workspace's namespace with an inference_config.yaml, for a preset.

    It is read when the server is rolled out: name another one to have a change taken up.
    """
    adapters: Annotated[
        tuple[Adapter, ...],
        pydantic.Field(max_length=10, json_schema_extra={"x-kubernetes-validations": [_UNIQUE.schema()]}),
        pydantic.AfterValidator(_distinct),
    ] = ()
    """Adapters to serve with it; may change at any time, without a restart.

    By vLLM the first one and the loss of the last restart it, unless inference.config has `enable-lora: true`.
    """
    progress_deadline_seconds: Seconds | None = None
    """How long a new server may take to answer; default: the operator's settings, by the size of the model.

    An edit counts from the next attempt on.
    """

    @property
    def containers(self) -> list[dict[str, Any]]:
        """The containers of the template, as far as it has some."""
        found = ((self.template or {}).get("spec") or {}).get("containers")
        return found if isinstance(found, list) else []
