"""Which taints keep pods off a node, as the scheduler reads them. Pure.

Those of Kubernetes' own, by which it tells of a node's state, come and go; the state itself is looked at elsewhere.
"""

from collections.abc import Collection
from typing import Any

_STATE = "node.kubernetes.io/"


def repelling(node: dict[str, Any], tolerations: Collection[dict[str, Any]]) -> str:
    """The first taint of the node that pods with these tolerations do not bear, as kubectl writes it; else empty."""
    for taint in node.get("spec", {}).get("taints", []):
        if taint["effect"] == "PreferNoSchedule" or taint["key"].startswith(_STATE):
            continue
        if not any(_bears(each, taint) for each in tolerations):
            value = f"={taint['value']}" if taint.get("value") else ""
            return f"{taint['key']}{value}:{taint['effect']}"
    return ""


def _bears(toleration: dict[str, Any], taint: dict[str, Any]) -> bool:
    if toleration.get("effect") not in {None, "", taint["effect"]}:
        return False
    if toleration.get("operator") == "Exists":
        return toleration.get("key") in {None, "", taint["key"]}
    return (toleration.get("key"), toleration.get("value", "")) == (taint["key"], taint.get("value", ""))
