"""A manifest that the API would not take: every slip with field, value and remedy, and what is left to be read."""

import difflib
import functools
import typing
from collections.abc import Iterable
from typing import Any

import pydantic
import pydantic.fields

from kaito_hera import errors
from kaito_hera.api import Model, Workspace
from kaito_hera.api.base import BrokenRulesError
from kaito_hera.findings import Finding

_TRIES = 5
_VERSIONS = ("kaito.sh/v1alpha1", "kaito.sh/v1beta1")
_OBJECT_META = (
    *("name", "labels", "annotations", "namespace", "finalizers", "ownerReferences", "generateName", "managedFields"),
    *("uid", "resourceVersion", "generation", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"),
    "selfLink",
)
"""Kubernetes' own, those that people write first."""
Location = tuple[str | int, ...]


def parse(obj: dict[str, Any]) -> tuple[Workspace | None, list[Finding]]:
    """The Workspace without what is wrong in it, if there is one then, and what is wrong.

    What follows from a part that was left out is not said: the part is.
    """
    found, left_out = [*_version(obj), *_metadata(obj), *_spec(obj)], set[Location]()
    obj = _lifted(obj)
    for _ in range(_TRIES):
        try:
            Workspace.parse(_anew(obj))
            return Workspace.parse(obj), found
        except pydantic.ValidationError as cause:
            problems = [p for p in cause.errors(include_url=False) if not _follows(p["loc"], left_out)]
        found += [finding for problem in problems for finding in _findings(problem) if finding not in found]
        kinds = {_cut(problem["loc"]): problem["type"] for problem in problems}
        cut = {location for location, kind in kinds.items() if kind not in {"missing", "value_error"}}
        if not cut:
            return None, found
        left_out |= {location for location in cut if kinds[location] != "extra_forbidden"}
        for location in cut:
            obj = _without(obj, location)
    return None, found


def _anew(obj: dict[str, Any]) -> dict[str, Any]:
    """As a manifest: what KAITO took and we do not is told before it comes to us."""
    metadata = obj.get("metadata")
    return _without(obj, ("metadata", "uid")) if isinstance(metadata, dict) else obj


def _version(obj: dict[str, Any]) -> list[Finding]:
    seen = obj.get("apiVersion")
    if seen in _VERSIONS:
        return []
    return [_finding("apiVersion", f"{str(seen)[:60]!r} is no version of Workspace", f"write {' or '.join(_VERSIONS)}")]


def _metadata(obj: dict[str, Any]) -> list[Finding]:
    """What kubectl's strict apply refuses there; the API reads the rest of it."""
    metadata = obj.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    strange = [key for key in metadata if key not in _OBJECT_META]
    found = [_finding(f"metadata.{key}", "there is no such field", _close(str(key), _OBJECT_META)) for key in strange]
    labels = metadata.get("labels")
    if labels is None or (isinstance(labels, dict) and all(isinstance(value, str) for value in labels.values())):
        return found
    return [*found, _finding("metadata.labels", f"{_shown(labels)} cannot be used", "each label is text: quote it")]


def _spec(obj: dict[str, Any]) -> list[Finding]:
    if "spec" not in obj:
        return []
    return [_finding("spec", "a Workspace has none", "write what is in it one level up, beside metadata")]


def _lifted(obj: dict[str, Any]) -> dict[str, Any]:
    """With what stands in a spec where it belongs, so that the rest of it is read too."""
    spec = obj.get("spec")
    rest = {key: value for key, value in obj.items() if key != "spec" and value is not None}
    return {**spec, **rest} if isinstance(spec, dict) else rest


def _follows(location: Location, left_out: set[Location]) -> bool:
    """Whether this is about something around or at what was left out before."""
    return any(gone[: len(location)] == location for gone in left_out)


def _cut(location: Location) -> Location:
    """What to leave out: of a list all of it, since places in it would move."""
    at = next((at for at, part in enumerate(location) if isinstance(part, int)), len(location))
    return location[:at]


def _without(value: dict[str, Any], location: Location) -> dict[str, Any]:
    first, *rest = location
    copied = dict(value)
    if rest and isinstance(copied.get(str(first)), dict):
        copied[str(first)] = _without(copied[str(first)], tuple(rest))
    else:
        copied.pop(str(first), None)
    return copied


def _findings(problem: Any) -> list[Finding]:
    location, kind, seen = problem["loc"], problem["type"], _shown(problem["input"])
    field = path(location)
    said = problem["msg"].removeprefix("Value error, ")
    if kind == "value_error":
        broken = problem["ctx"]["error"]
        return [_rule(field, text) for text in (broken.messages if isinstance(broken, BrokenRulesError) else (said,))]
    if kind == "missing":
        return [_finding(field, "is missing", _description(location))]
    if kind == "extra_forbidden":
        return [_finding(field, f"{seen}: there is no such field", _meant(location))]
    if kind == "literal_error":
        return [_finding(field, f"{seen} is not known", f"write {problem['ctx']['expected']}")]
    if kind in {"spelling", "string_pattern_mismatch"}:
        return [_finding(field, f"{seen} cannot be used", said if kind == "spelling" else _description(location))]
    remedy = _written(kind, problem["input"], location) or said.replace("Input should be", "it must be")
    return [_finding(field, f"{seen} cannot be used", remedy)]


def _written(kind: str, value: object, location: Location) -> str:
    """How a value of another type is to be written, as far as it is plain what is meant."""
    text = _shown(value).strip("'")
    if kind == "string_type" and isinstance(value, bool | int | float):
        return f'it is text, write it in quotes: "{str(value).lower()}"'
    if kind in {"int_type", "bool_type"} and (text.isdecimal() or text in {"true", "false"}):
        return f"write it without quotes: {text}"
    if kind == "tuple_type":
        return f"write a list: [{text}]" if isinstance(value, str | int | float) else "write a list: begin it with a -"
    owner = _model(location)
    named = kind == "model_type" and isinstance(value, str) and owner is not None and "name" in owner.model_fields
    return f"write {{name: {text}}}" if named else ""


def _rule(field: str, text: str) -> Finding:
    """A rule says what to do by itself; one about the whole begins with the field it is about."""
    head, _, tail = text.partition(": ")
    if field == "Workspace" and tail and " " not in head:
        return _finding(head, tail)
    return _finding(field, text)


def _finding(field: str, problem: str, remedy: str = "") -> Finding:
    return Finding(errors.InvalidWorkspaceError, field, problem, remedy)


def path(location: Location) -> str:
    """As people write it: `inference.adapters[0].source`."""
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in location]
    return "".join(parts).removeprefix(".") or "Workspace"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:56]} ..."


def _meant(location: Location) -> str:
    *above, key = location
    owner = _model(tuple(above))
    if not above and key in _OBJECT_META:
        return "it belongs below metadata"
    if owner and (below := _places(owner, str(key), path(tuple(above)) + "." if above else "")):
        return f"it belongs below {' or '.join(below)}"
    known = list(_fields(owner)) if owner else []
    elsewhere = [] if difflib.get_close_matches(str(key), known, 1) else _places(Workspace, str(key))
    return f"it belongs below {' or '.join(elsewhere)}" if elsewhere else _close(str(key), known)


def _places(owner: type[pydantic.BaseModel], key: str, prefix: str = "") -> list[str]:
    """Where below there is such a field: the nearest of them."""
    parts = {f"{prefix}{name}{'[]' * _listed(field.annotation)}": field for name, field in _fields(owner).items()}
    found = {place: part for place, field in parts.items() if (part := _part(field.annotation))}
    here = [place for place, part in found.items() if key in _fields(part)]
    return here or [each for place, part in found.items() for each in _places(part, key, f"{place}.")]


def _fields(owner: type[pydantic.BaseModel]) -> dict[str, pydantic.fields.FieldInfo]:
    return {field.alias or name: field for name, field in owner.model_fields.items()}


def _listed(annotation: Any) -> bool:
    return typing.get_origin(annotation) is tuple or any(_listed(arg) for arg in typing.get_args(annotation))


def _close(key: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(key, known, 1)
    return f"did you mean {close[0]}?" if close else f"take it out; there are {', '.join(known)}"


def _description(location: Location) -> str:
    """What the field is for, as `kubectl explain` has it."""
    owner = _model(location[:-1])
    fields = _fields(owner) if owner else {}
    field = fields.get(str(location[-1]))
    return (field.description or "") if field else ""


@functools.cache
def _model(location: Location) -> type[pydantic.BaseModel] | None:
    """The part of the API that stands there."""
    found: type[pydantic.BaseModel] | None = Workspace
    for part in location:
        if found is None or isinstance(part, int):
            continue
        fields = _fields(found)
        found = _part(fields[part].annotation) if part in fields else None
    return found


def _part(annotation: Any) -> type[pydantic.BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, Model):
        return annotation
    return next((part for arg in typing.get_args(annotation) if (part := _part(arg))), None)
