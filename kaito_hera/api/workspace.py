"""The Workspace as a whole, and what follows from it without looking at anything else."""

import hashlib
import json
import re
from typing import Any, Literal, Self

import pydantic
from pydantic.alias_generators import to_camel

from kaito_hera.api import annotations
from kaito_hera.api.base import Model, Rule
from kaito_hera.api.inference import Adapter, Inference, Preset
from kaito_hera.api.resource import LabelSelector, Resource
from kaito_hera.api.tuning import Tuning

GROUP = "kaito.sh"
FINALIZER = "workspace.finalizer.kaito.sh"
"""KAITO's own name, so that a Workspace made under KAITO is released by whoever runs."""

_NOBODY = "00000000-0000-0000-0000-000000000000"
"""The uid of what was never stored."""
_NAME = "^[a-z]([-a-z0-9]*[a-z0-9])?$"
_ANNOTATION = 253
"""Letters of an annotation that steps are told: the name of a Secret has no more."""


class Metadata(pydantic.BaseModel):
    """What is read of an object's metadata."""

    model_config = pydantic.ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True)

    name: str
    namespace: str = "default"
    uid: str = _NOBODY
    generation: int = 1
    resource_version: str = ""
    annotations: dict[str, str] = {}
    finalizers: tuple[str, ...] = ()
    deletion_timestamp: str | None = None


def _same(part: str) -> str:
    return f"has(oldSelf.value().{part}) == has(self.{part})"


def _one_model(w: "Workspace") -> bool:
    if w.tuning is None or w.inference is None:
        return True
    return w.inference.preset is not None and w.inference.preset.name == w.tuning.preset.name


def _option(of: str, field: str, nothing: str) -> str:
    """CEL for one of a preset's options, or nothing."""
    options = f"self.{of}.preset.presetOptions"
    return f"(has({options}) && has({options}.{field}) ? {options}.{field} : {nothing})"


_OPTIONS = (("image", "''"), ("imagePullSecrets", "[]"), ("modelAccessSecret", "''"))


def _one_source(w: "Workspace") -> bool:
    served = w.inference.preset.preset_options if w.inference and w.inference.preset else None
    if w.tuning is None or served is None:
        return True
    tuned = w.tuning.preset.options
    return (served.image or "", served.image_pull_secrets, served.model_access_secret or "") == (
        tuned.image or "",
        tuned.image_pull_secrets,
        tuned.model_access_secret or "",
    )


class Workspace(Model):
    """A model to serve, or to tune and then serve, and the GPU nodes for it."""

    # The root's rules see metadata too, so they run when a finalizer goes: they must let be what is there already.
    rules = (
        Rule(
            "oldSelf.hasValue() || has(self.inference) || has(self.tuning)",
            "give inference (serve a model), tuning (tune it, then serve it), or both: one of them at least",
            lambda w: bool(w.inference or w.tuning),
            also_new=True,
        ),
        Rule(
            "!oldSelf.hasValue() || ("
            f"{_same('tuning')} && (!has(oldSelf.value().inference) || has(self.inference))"
            f" && ({_same('inference')} || has(self.tuning)))",
            "inference and tuning cannot be taken out or exchanged; only inference may be added to tuning:"
            " delete the Workspace and apply it anew",
            also_new=True,
        ),
        Rule(
            f"oldSelf.hasValue() || (self.metadata.name.matches('{_NAME}') && size(self.metadata.name) <= 63)",
            "metadata.name: a Service carries this name, so it must be lower-case letters, digits and '-',"
            " begin with a letter, and have at most 63 characters",
            lambda w: re.fullmatch(_NAME, w.metadata.name) is not None and len(w.metadata.name) <= 63,
            also_new=True,
        ),
        Rule(
            "!has(self.tuning) || !has(self.inference)"
            " || (has(self.inference.preset) && self.inference.preset.name == self.tuning.preset.name)",
            "inference.preset.name: must be tuning.preset.name where both are given:"
            " what is tuned is served, with inference's adapters and settings",
            _one_model,
            seen="'inference.preset.name: must be tuning.preset.name where both are given, ' + self.tuning.preset.name"
            " + ', and is ' + self.inference.preset.name + ': what is tuned is served'",
        ),
        Rule(
            "!has(self.tuning) || !has(self.inference) || !has(self.inference.preset)"
            " || !has(self.inference.preset.presetOptions) || ("
            + " && ".join(f"{_option('inference', *each)} == {_option('tuning', *each)}" for each in _OPTIONS)
            + ")",
            "inference.preset.presetOptions: what is tuned is served: leave it out, or write what"
            " tuning.preset.presetOptions says",
            _one_source,
        ),
        Rule(
            "!has(self.tuning) || !has(self.inference) || !has(self.inference.adapters)"
            " || self.inference.adapters.all(a, a.source.name != self.metadata.name)",
            "inference.adapters: metadata.name is the name of the adapter that is tuned: give yours another one",
            lambda w: w.tuning is None or all(a.source.name != w.metadata.name for a in w.adapters),
        ),
        Rule(
            "!has(self.tuning) || !has(self.resource.count) || self.resource.count == 1",
            "resource.count: tuning runs on one node; take count out",
            lambda w: w.tuning is None or w.resource.count == 1,
        ),
    )

    api_version: str = f"{GROUP}/v1beta1"
    kind: Literal["Workspace"] = "Workspace"
    metadata: Metadata
    resource: Resource
    inference: Inference | None = None
    tuning: Tuning | None = None

    @classmethod
    def parse(cls, obj: dict[str, Any]) -> Self:
        """Read an object of the API server or a manifest, its status left aside; raises pydantic.ValidationError.

        As strict about types as the API server, and like it a null is a field that is not there.
        """
        kept = {key: _without_nulls(value, key) for key, value in obj.items() if key != "status" and value is not None}
        return cls.model_validate_json(json.dumps(kept), strict=True)

    @classmethod
    def bare(cls, metadata: Metadata, api_version: str) -> Self:
        """A Workspace of which no more is known, or to be told, than who it is."""
        return cls(
            api_version=api_version,
            metadata=metadata,
            resource=Resource(label_selector=LabelSelector()),
            inference=Inference(preset=Preset(name="nothing")),
        )

    def is_stored(self) -> bool:
        """The API server gives the uid; a manifest has none."""
        return self.metadata.uid != _NOBODY

    @property
    def key(self) -> str:
        """`namespace/name`."""
        return f"{self.metadata.namespace}/{self.metadata.name}"

    @property
    def serves(self) -> bool:
        """Whether a server is wanted in the end: always for inference alone, after tuning unless switched off."""
        if self.tuning is None:
            return True
        return self.tuning.serve is not False and self.annotation(annotations.SERVE) != "false"

    def annotation(self, key: str) -> str:
        """An annotation's value as it is compared: without spaces around it, in lower case; empty when absent.

        Empty, too, for a spelling that has no effect.
        """
        given = self.metadata.annotations.get(key, "")
        return "" if given != annotations.EXACT.get(key, given) else annotations.plain(given)

    @property
    def annotated(self) -> str:
        """A hash of the annotations that ask for something, as the generation counts edits; empty without any."""
        given, first = self.metadata.annotations, (annotations.SERVE, annotations.RETRY)
        # Status keeps this: another text for the same annotations would start what is stalled anew.
        asked = [given.get(name, "") for name in first]
        silent = {name for name in annotations.NAMING if not self.annotation(name)}
        others = [name for name in annotations.EFFECTIVE if name in given and name not in {*first, *silent}]
        asked += [f"{name}={given[name]}" for name in others]
        return hashlib.sha256("\n".join(asked).encode()).hexdigest()[:16] if any(asked) else ""

    @property
    def preset(self) -> Preset | None:
        """The model that is served or tuned; None when the user brings a pod of his own."""
        if self.tuning:
            return self.tuning.preset
        return self.inference.preset if self.inference else None

    @property
    def preset_name(self) -> str:
        """The name of that model; raises AssertionError when there is none."""
        assert self.preset is not None, f"{self.key} has no preset"
        return self.preset.name

    @property
    def adapters(self) -> tuple[Adapter, ...]:
        """Adapters that the user lists; what is tuned comes on top."""
        return self.inference.adapters if self.inference else ()

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
        if asked := {key: m.annotations[key][:_ANNOTATION] for key in annotations.EFFECTIVE if key in m.annotations}:
            metadata["annotations"] = asked
        body = self.model_dump(by_alias=True, exclude={"metadata"}, exclude_defaults=True, mode="json")
        return {"apiVersion": self.api_version, "kind": self.kind, "metadata": metadata, **body}


_WHOLE = frozenset({"template", "csi", "ephemeral", "nfs", "azureFile", "azureDisk", "configMap", "secret", "image"})
"""Fields whose objects the API server stores as they are, nulls included."""


def _without_nulls(value: Any, key: str = "") -> Any:
    if key in _WHOLE and isinstance(value, dict):
        return value
    if isinstance(value, dict):
        return {name: _without_nulls(each, name) for name, each in value.items() if each is not None}
    if isinstance(value, list):
        return [_without_nulls(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value  # to the API server 1.0 is 1
