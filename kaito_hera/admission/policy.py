"""The admission policies as objects: `python -m kaito_hera.admission` prints them, argo/policy.yaml is what it printed.

Judged is what an edit changes, on objects that are not being deleted: a finalizer comes and goes whatever else holds.
"""

import dataclasses
from typing import Any, Literal

from kaito_hera.admission import facts, images, rules, sizes, tables, words
from kaito_hera.admission.rule import Needs, Rule, Severity
from kaito_hera.settings import CONFIG_MAP as SETTINGS

GROUP = "hera.kaito.sh"
TABLE = "kaito-hera-presets"
_REGISTRATION = "admissionregistration.k8s.io/v1"
_LABELS = {"app.kubernetes.io/part-of": "kaito-hera"}
_ROOM = 4000
"""Characters of a message, less than what the API server lets pass."""


@dataclasses.dataclass(frozen=True)
class _Policy:
    """One policy and what it needs."""

    name: str
    needs: tuple[Needs, ...]
    severity: Severity
    why: str
    """For whoever reads the object."""


_POLICIES = (
    _Policy("kaito-hera-workspaces", ("",), "error", "What no Workspace may say, whatever is installed."),
    _Policy("kaito-hera-authors", ("author",), "error", "Who gets a pod must be allowed to make one."),
    _Policy(TABLE, ("tables",), "error", "What can never work, by the tables of presets and GPU sizes."),
    _Policy(SETTINGS, ("settings",), "error", "What the platform team's settings ask for."),
    _Policy("kaito-hera-warnings", ("", "tables"), "warning", "What works but should be known."),
)


def of(rule: Rule) -> str:
    """The name of the policy that has this rule."""
    return next(one.name for one in _POLICIES if rule.needs in one.needs and rule.severity == one.severity)


def told(messages: list[str]) -> str:
    """What the API server shows of a policy's messages."""
    joined = "; ".join(messages)
    return joined[:_ROOM] + "..." if len(joined) > _ROOM else joined


def manifests() -> list[dict[str, Any]]:
    """All objects in the order in which to apply them."""
    made = [_table()]
    for policy in _POLICIES:
        made += [_policy(policy, [rule for rule in rules.RULES if of(rule) == policy.name]), _binding(policy)]
    return [*made, *_presence()]


def definition() -> dict[str, Any]:
    """The kind of the tables.

    Not a ConfigMap: an API server that once saw no binding with ConfigMaps as parameters, as after an uninstall, never
    again sees any (kubernetes/kubernetes#130887), and every new Workspace would be refused until it is restarted.
    """
    schema = {
        "type": "object",
        "description": "What the admission policies know of presets and GPU sizes; generated from presets/.",
        "properties": {"data": {"type": "object", "additionalProperties": {"type": "string", "maxLength": 4096}}},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"presettables.{GROUP}", "labels": _LABELS},
        "spec": {
            "group": GROUP,
            "scope": "Cluster",
            "names": {
                "kind": "PresetTable",
                "listKind": "PresetTableList",
                "plural": "presettables",
                "singular": "presettable",
            },
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}],
        },
    }


def _table() -> dict[str, Any]:
    metadata = {"name": TABLE, "labels": _LABELS}
    return {"apiVersion": f"{GROUP}/v1", "kind": "PresetTable", "metadata": metadata, "data": tables.data()}


def _policy(policy: _Policy, chosen: list[Rule]) -> dict[str, Any]:
    shared: dict[str, str] = {}
    if "" in policy.needs:
        shared |= {**words.VARIABLES, **images.VARIABLES}
    if "tables" in policy.needs:
        shared |= {**facts.variables(), **sizes.variables()}
    if "settings" in policy.needs:
        shared |= sizes.settings_variables()
    said = [f"({rule.guarded()})" for rule in chosen]
    if policy.severity == "error":  # the API server shows the first refusal alone, so it must hold all that is wrong
        shared |= {"problems": " + ".join(said)}
        said = ["variables.problems"]
    spec: dict[str, Any] = {
        "failurePolicy": _failure(policy),
        **_param_kind(policy.needs),
        "matchConstraints": _matched("CREATE", "UPDATE"),
        "matchConditions": [{"name": "not-being-deleted", "expression": "!has(object.metadata.deletionTimestamp)"}],
        # few, since each is evaluated in a world of its own, which costs more than most rules
        "variables": [{"name": name, "expression": cel} for name, cel in shared.items()],
        "validations": [_validation(one, _excuse(policy)) for one in said],
    }
    return _object("ValidatingAdmissionPolicy", policy.name, spec, policy.why)


def _failure(policy: _Policy) -> Literal["Fail", "Ignore"]:
    """Without its tables' kind a policy must not hold up what is there; new Workspaces are refused for its absence."""
    return "Ignore" if "tables" in policy.needs else "Fail"


def _excuse(policy: _Policy) -> str:
    return f" || {rules.MAY_MAKE_PODS}" if "author" in policy.needs else ""


def _validation(messages: str, excuse: str) -> dict[str, str]:
    joined = f"[{messages}.join('; ')].map(m, m.size() > {_ROOM} ? m.substring(0, {_ROOM}) + '...' : m)[0]"
    return {
        "expression": f"size({messages}) == 0{excuse}",
        "messageExpression": joined,
        "message": "a field is not as it must be; `kaito-hera plan FILE` says which",
    }


def _binding(policy: _Policy) -> dict[str, Any]:
    action = "Deny" if policy.severity == "error" else "Warn"
    return _bound(policy.name, policy.name, _param_ref(policy.needs, "Allow"), action)


def _bound(name: str, policy: str, param: dict[str, Any], action: str) -> dict[str, Any]:
    spec = {"policyName": policy, **({"paramRef": param} if param else {}), "validationActions": [action]}
    return _object("ValidatingAdmissionPolicyBinding", name, spec)


def _presence() -> list[dict[str, Any]]:
    """New Workspaces are refused while the tables are missing; the only words that are ours then are the names."""
    why = "Refuses new Workspaces while the tables that judge them are missing: install kaito-hera anew."
    rows = f"params.?data[?'{tables.NAMES}'].orValue('') != ''"
    told = f"PresetTable {TABLE} is empty: install kaito-hera anew (`make install`, or apply argo/), then apply again"
    spec = {
        "failurePolicy": "Fail",
        **_param_kind(("tables",)),
        "matchConstraints": _matched("CREATE"),
        "validations": [{"expression": rows, "message": told}],
    }
    name = "kaito-hera-tables"
    gone = f"presettable-{TABLE}-is-missing.install-kaito-hera-anew"
    return [
        _object("ValidatingAdmissionPolicy", name, spec, why),
        _bound(gone, name, _param_ref(("tables",), "Deny"), "Deny"),
    ]


def _param_kind(needs: tuple[Needs, ...]) -> dict[str, Any]:
    if "tables" in needs:
        return {"paramKind": {"apiVersion": f"{GROUP}/v1", "kind": "PresetTable"}}
    return {"paramKind": {"apiVersion": "v1", "kind": "ConfigMap"}} if "settings" in needs else {}


def _param_ref(needs: tuple[Needs, ...], missing: Literal["Allow", "Deny"]) -> dict[str, Any]:
    if "tables" in needs:
        return {"name": TABLE, "parameterNotFoundAction": missing}
    settings = {"name": SETTINGS, "namespace": "kaito-hera", "parameterNotFoundAction": missing}
    return settings if "settings" in needs else {}


def _matched(*operations: str) -> dict[str, Any]:
    kind = {"apiGroups": ["kaito.sh"], "apiVersions": ["v1alpha1", "v1beta1"], "resources": ["workspaces"]}
    return {"resourceRules": [{**kind, "operations": list(operations)}]}


def _object(kind: str, name: str, spec: dict[str, Any], why: str = "") -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": name, "labels": _LABELS}
    if why:
        metadata["annotations"] = {"kubernetes.io/description": why}
    return {"apiVersion": _REGISTRATION, "kind": kind, "metadata": metadata, "spec": spec}
