"""The Workspace as users write it: the one source of the CRD, its documentation and what the code reads.

Both API versions, v1alpha1 and v1beta1, have this schema. The texts under the fields are what `kubectl explain` prints.
"""

import hashlib
from typing import Annotated, Any, Literal, Self

import pydantic
from pydantic.alias_generators import to_camel

import presets

GROUP = "kaito.sh"
FINALIZER = "workspace.finalizer.kaito.sh"
"""KAITO's own name, so that a Workspace made under KAITO is released by whoever runs."""

SERVE_ANNOTATION = "kaito.sh/serve"
"""`"false"` on a tuning Workspace: push the adapter, give the nodes back, serve nothing."""

RETRY_ANNOTATION = "kaito.sh/retry"
"""Another value asks for another attempt where none would follow: what was wrong lay outside the Workspace."""

Text = Annotated[str, pydantic.StringConstraints(min_length=1, max_length=2048)]
Word = Annotated[
    str,
    pydantic.StringConstraints(min_length=1, max_length=253, pattern=r"^[A-Za-z0-9]([-A-Za-z0-9._/]*[A-Za-z0-9])?$"),
]
"""A label's key, or the name of something outside the cluster."""
Name = Annotated[
    str, pydantic.StringConstraints(min_length=1, max_length=253, pattern=r"^[A-Za-z0-9]([-A-Za-z0-9._]*[A-Za-z0-9])?$")
]
"""The name of an object. Wider than Kubernetes': preflight tells more about a placeholder like SECRET_HERE."""
Image = Annotated[
    str, pydantic.StringConstraints(min_length=1, max_length=2048, pattern=r"^[A-Za-z0-9][-A-Za-z0-9._:/@]*$")
]
"""An image reference."""


_SAME_SIZE = "!has(oldSelf.instanceType) || (has(self.instanceType) && self.instanceType == oldSelf.instanceType)"
_UNIQUE = "self.all(a, self.exists_one(b, b.source.name == a.source.name))"
_LONGEST = 60_000
"""Characters that a Workflow's argument leaves for addresses: a process takes 128 KiB in one."""
_FIXED = "cannot be changed, since the nodes were made or chosen by it: delete the Workspace and apply it anew"


def _rule(rule: str, message: str) -> dict[str, Any]:
    """A CEL rule, which the API server checks at every write."""
    return {"x-kubernetes-validations": [{"rule": rule, "message": message}]}


class Model(pydantic.BaseModel):
    """A frozen part of the API; JSON names are camelCase, unknown ones are errors."""

    model_config = pydantic.ConfigDict(
        extra="forbid",
        frozen=True,
        alias_generator=to_camel,
        populate_by_name=True,
        use_attribute_docstrings=True,
    )


class MatchExpression(Model):
    """A requirement on one label."""

    key: Word
    operator: Literal["In"]
    """Only In: the labels are also put on new nodes, so each must have one value."""
    values: Annotated[tuple[Text, ...], pydantic.Field(min_length=1, max_length=1)]
    """Exactly one value."""


class LabelSelector(Model):
    """Labels that nodes carry: looked for on existing nodes, put on new ones."""

    match_labels: Annotated[dict[str, str], pydantic.Field(max_length=32)] = {}
    """Label and value."""
    match_expressions: Annotated[tuple[MatchExpression, ...], pydantic.Field(max_length=32)] = ()
    """The same in the long form; only the operator In with one value."""

    def labels(self) -> dict[str, str]:
        """Both forms as one map."""
        return {**self.match_labels, **{e.key: e.values[0] for e in self.match_expressions}}


class Resource(Model):
    """The GPU nodes that the Workspace runs on."""

    model_config = pydantic.ConfigDict(json_schema_extra=_rule(_SAME_SIZE, f"instanceType {_FIXED}"))

    count: Annotated[int, pydantic.Field(ge=1, le=100)] = 1
    """Number of nodes, one server on each. Tuning uses one."""
    instance_type: Word | None = None
    """The cloud's name of the GPU size, for example Standard_NC24ads_A100_v4. Leave it out on nodes you bring."""
    label_selector: Annotated[
        LabelSelector, pydantic.Field(json_schema_extra=_rule("self == oldSelf", f"labelSelector {_FIXED}"))
    ]
    """Labels of the nodes: new nodes get them, existing nodes (provider byo) are found by them."""
    preferred_nodes: Annotated[tuple[Name, ...], pydantic.Field(max_length=100)] = ()
    """Names of existing nodes to take first (provider byo)."""


class Preset(Model):
    """A model that kaito-hera knows."""

    name: Annotated[Word, pydantic.Field(description=f"Name of the preset: {', '.join(presets.presets())}.")]


class AdapterSource(Model):
    """Where an adapter comes from."""

    name: Annotated[
        str, pydantic.StringConstraints(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    ]
    """Name of the adapter, unique in the Workspace; clients may ask for it as a model."""
    image: Image
    """Image with /data/adapter_config.json and /data/adapter_model.safetensors."""
    image_pull_secrets: Annotated[tuple[Name, ...], pydantic.Field(max_length=10)] = ()
    """Secrets of type kubernetes.io/dockerconfigjson in the Workspace's namespace."""


class Adapter(Model):
    """A LoRA adapter added to the served model."""

    source: AdapterSource
    """Where the adapter comes from."""
    strength: Annotated[str, pydantic.StringConstraints(max_length=16, pattern=r"^(0(\.[0-9]+)?|1(\.0+)?)$")] = "1.0"
    """How much of the adapter is added, from "0.0" (nothing) to "1.0" (all of it, the default)."""


class Inference(Model):
    """Serve a model."""

    preset: Preset
    """The model to serve."""
    adapters: Annotated[
        tuple[Adapter, ...],
        pydantic.Field(max_length=10, json_schema_extra=_rule(_UNIQUE, "each adapter needs a source.name of its own")),
    ] = ()
    """Adapters to serve with it; may change at any time, without a restart."""

    @pydantic.field_validator("adapters")
    @classmethod
    def _unique(cls, adapters: tuple[Adapter, ...]) -> tuple[Adapter, ...]:
        names = [adapter.source.name for adapter in adapters]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"each adapter needs a source.name of its own, {twice!r} is there twice")
        return adapters


class Input(Model):
    """The data to learn from."""

    model_config = pydantic.ConfigDict(
        json_schema_extra=_rule(
            f"self.urls.map(url, size(url)).sum() <= {_LONGEST}",
            f"urls have more than {_LONGEST} characters together: put the data into fewer files",
        )
    )

    name: Annotated[str, pydantic.StringConstraints(min_length=1, max_length=253)] | None = None
    """A name for the data; only for people."""
    urls: Annotated[tuple[Text, ...], pydantic.Field(min_length=1, max_length=64)]
    """http(s) addresses of data files (parquet, jsonl, json, csv); all of them are used."""


class Output(Model):
    """Where the tuned adapter goes."""

    image: Image
    """Image reference with a tag, for example myregistry.azurecr.io/my-adapter:0.0.1."""
    image_push_secret: Name
    """Secret of type kubernetes.io/dockerconfigjson in the Workspace's namespace, with the right to push."""


class Tuning(Model):
    """Tune a model, push the adapter as an image, then serve the model with it."""

    preset: Preset
    """The model to tune."""
    method: Literal["lora", "qlora"]
    """lora trains beside 16-bit weights, qlora beside 4-bit ones and needs about half the memory."""
    config: Name | None = None
    """ConfigMap in the Workspace's namespace with a training_config.yaml; default: the operator's template."""
    input: Input
    """The data to learn from."""
    output: Output
    """Where the adapter goes."""


class Metadata(pydantic.BaseModel):
    """What is read of an object's metadata."""

    model_config = pydantic.ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True)

    name: str
    namespace: str = "default"
    uid: str = "00000000-0000-0000-0000-000000000000"
    generation: int = 1
    resource_version: str = ""
    annotations: dict[str, str] = {}
    finalizers: tuple[str, ...] = ()
    deletion_timestamp: str | None = None


class Workspace(Model):
    """A model to serve, or to tune and then serve, and the GPU nodes for it."""

    api_version: str = f"{GROUP}/v1beta1"
    kind: Literal["Workspace"] = "Workspace"
    metadata: Metadata
    resource: Resource
    inference: Inference | None = None
    tuning: Tuning | None = None

    @classmethod
    def parse(cls, obj: dict[str, Any]) -> Self:
        """Read an object of the API server or a manifest, its status left aside; raises pydantic.ValidationError."""
        return cls.model_validate({key: value for key, value in obj.items() if key != "status"})

    @classmethod
    def bare(cls, metadata: Metadata, api_version: str) -> Self:
        """A Workspace of which no more is known, or to be told, than who it is."""
        return cls(
            api_version=api_version,
            metadata=metadata,
            resource=Resource(label_selector=LabelSelector()),
            inference=Inference(preset=Preset(name="nothing")),
        )

    @property
    def key(self) -> str:
        """`namespace/name`."""
        return f"{self.metadata.namespace}/{self.metadata.name}"

    @property
    def serves(self) -> bool:
        """Whether a server is wanted in the end: always for inference, after tuning unless switched off."""
        return self.inference is not None or self.metadata.annotations.get(SERVE_ANNOTATION) != "false"

    @property
    def annotated(self) -> str:
        """A hash of the annotations that ask for something, as the generation counts edits; empty without any."""
        asked = [self.metadata.annotations.get(name, "") for name in (SERVE_ANNOTATION, RETRY_ANNOTATION)]
        return hashlib.sha256("\n".join(asked).encode()).hexdigest()[:16] if any(asked) else ""

    @property
    def preset_name(self) -> str:
        """The model that is served or tuned."""
        part = self.tuning or self.inference
        assert part is not None, f"{self.key} has neither inference nor tuning"
        return part.preset.name

    @property
    def node_count(self) -> int:
        """Nodes wanted; tuning uses one."""
        return 1 if self.tuning else self.resource.count

    def identity(self) -> Self:
        """Who it is, without what it asks for: all that a release needs, however large the rest may be."""
        return self.bare(self.metadata.model_copy(update={"annotations": {}}), self.api_version)

    def intent(self) -> dict[str, Any]:
        """The object without status and server fields: enough for a step to do its part."""
        m = self.metadata
        metadata: dict[str, Any] = {"name": m.name, "namespace": m.namespace, "uid": m.uid, "generation": m.generation}
        if serve := m.annotations.get(SERVE_ANNOTATION, "")[:40]:
            metadata["annotations"] = {SERVE_ANNOTATION: serve}
        body = self.model_dump(by_alias=True, exclude={"metadata"}, exclude_defaults=True, mode="json")
        return {"apiVersion": self.api_version, "kind": self.kind, "metadata": metadata, **body}
