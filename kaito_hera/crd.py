"""The CustomResourceDefinition, generated from the models in `api` and `status`: one schema for both versions.

`kubectl explain workspace.tuning` prints the models' own docstrings.
"""

from typing import Any

from kaito_hera.api import GROUP, Inference, Resource, Tuning, Workspace
from kaito_hera.status import Status

_KEPT = (
    "type",
    "enum",
    "pattern",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "maxProperties",
    "x-kubernetes-validations",
    "x-kubernetes-preserve-unknown-fields",
)


def manifest() -> dict[str, Any]:
    """The whole object, to be applied server-side."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"workspaces.{GROUP}", "labels": {"app.kubernetes.io/part-of": "kaito-hera"}},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": "Workspace",
                "listKind": "WorkspaceList",
                "plural": "workspaces",
                "singular": "workspace",
                "shortNames": ["wk", "wks"],
                "categories": ["workspace"],
            },
            "versions": [
                _version("v1alpha1", storage=False, columns=_columns(later=1)),
                _version("v1beta1", storage=True, columns=_columns(later=0)),
            ],
        },
    }


def _column(name: str, path: str, kind: str = "string", **more: Any) -> dict[str, Any]:
    return {"name": name, "type": kind, "jsonPath": path, **more}


def _condition(name: str, field: str = "status") -> str:
    return f'.status.conditions[?(@.type=="{name}")].{field}'


def _columns(*, later: int) -> list[dict[str, Any]]:
    """What KAITO's first releases print, and what later ones do: `-o wide` prints those of priority 1."""
    return [
        _column("Instance", ".status.instanceType"),
        _column("ResourceReady", _condition("ResourceReady")),
        _column("InferenceReady", _condition("InferenceReady")),
        _column("JobStarted", _condition("JobStarted"), priority=later),
        _column("WorkspaceSucceeded", _condition("WorkspaceSucceeded"), priority=later),
        _column("WorkspaceReady", _condition("WorkspaceReady")),
        _column("State", ".status.state", priority=later),
        _column("Age", ".metadata.creationTimestamp", "date"),
        _column("TargetNodeCount", ".status.targetNodeCount", "integer", priority=1),
        _column("Step", ".status.step.name", priority=1),
        _column("Percent", ".status.step.percent", "integer", priority=1),
        _column("Message", _condition("WorkspaceReady", "message"), priority=1),
    ]


def _version(name: str, *, storage: bool, columns: list[dict[str, Any]]) -> dict[str, Any]:
    schema = {
        "type": "object",
        "description": Workspace.__doc__,
        "required": ["resource"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "resource": _schema(Resource),
            "inference": _schema(Inference),
            "tuning": _schema(Tuning),
            "status": _schema(Status),
        },
        "x-kubernetes-validations": [rule.schema() for rule in Workspace.rules],
    }
    return {
        "name": name,
        "served": True,
        "storage": storage,
        "schema": {"openAPIV3Schema": schema},
        "subresources": {"status": {}},
        "additionalPrinterColumns": columns,
    }


def _schema(model: type[Any]) -> dict[str, Any]:
    """The model's JSON schema in the structural form that the API server wants: no references, no nulls."""
    full = model.model_json_schema(by_alias=True, mode="validation")
    made: dict[str, Any] = _structural(full, full.get("$defs", {}))
    return made


def _structural(node: dict[str, Any], defs: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in node:
        target = defs[node["$ref"].rpartition("/")[2]]
        return _structural({**target, **{k: v for k, v in node.items() if k != "$ref"}}, defs)
    if "anyOf" in node:  # a type or null
        given = next(option for option in node["anyOf"] if option.get("type") != "null")
        return _structural({**given, **{k: v for k, v in node.items() if k != "anyOf"}}, defs)
    out = {key: node[key] for key in _KEPT if key in node}
    if "const" in node:
        out |= {"type": "string", "enum": [node["const"]]}
    if "description" in node:
        out["description"] = node["description"]
    if (
        node.get("default") is not None
        and node["default"] not in ([], {}, "")
        and "type" in out
        and out["type"] != "object"
    ):
        out["default"] = node["default"]
    if "properties" in node:
        out["properties"] = {name: _structural(value, defs) for name, value in node["properties"].items()}
    if isinstance(node.get("additionalProperties"), dict):
        out["additionalProperties"] = _structural(node["additionalProperties"], defs)
    if "items" in node:
        out["items"] = _structural(node["items"], defs)
    if node.get("required"):
        out["required"] = node["required"]
    return out
