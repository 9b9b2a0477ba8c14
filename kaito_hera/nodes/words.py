"""What Azure's answers mean to us, by their status and words. Knows the shape of the SDK's errors, not the SDK."""

import base64
import json
import re
from pathlib import Path
from typing import Any

from kaito_hera import errors, nodes
from kaito_hera.settings import Azure

_BUSY = re.compile(
    r"another (agentpool |managed ?cluster )?operation|aks-pending-operation|AKSOperationPreempted|EtagMismatch"
    r"|PutAgentPool_FailedPrecondition|is being deleted",
    re.IGNORECASE,
)
_REFUSED = re.compile(
    r"quota|LowPriorityCores|AllocationFail|Overconstrained\w*Allocation|Aks\w*Capacity|sufficient capacity"
    r"|SkuNotAvailable|VMSizeNotSupported|AvailabilityZoneNotSupported|VM size of \S+ is not allowed"
    r"|is not supported (for subscription|in location)|RequestDisallowedBy|spot",
    re.IGNORECASE,
)
"""No machines of this size and kind of capacity for us: quota, capacity, a size that is not sold, a policy."""
_NO_CLUSTER = re.compile(
    r"ParentResourceNotFound|ResourceGroupNotFound|SubscriptionNotFound|managedClusters/[^/']+' under resource group"
)
_PASSING = re.compile(r"quota|capacity|not enough|insufficient|temporar|try again|retry|later", re.IGNORECASE)
"""What passes, whatever code it comes with."""
_FIELDS = {
    "nodelabels": "resource.labelSelector",
    "node label": "resource.labelSelector",
    "vmsize": "resource.instanceType",
}
_TRACE = re.compile(r"\s*Trace ID: .*", re.DOTALL)  # other each time, and a message is to change when its cause does


class MissingError(Exception):
    """There is no such pool."""


class ExistsError(Exception):
    """The pool that was to be made is there."""


class BusyError(Exception):
    """Azure does something else just now, or somebody wrote before us."""


def missing(cause: Any, azure: Azure) -> Exception:
    """A 404: the pool is not there, or the cluster that the settings name."""
    said = story(cause)
    if not _NO_CLUSTER.search(said):
        return MissingError(said)
    return errors.ProvisioningFailedError(
        f"setting azure: no AKS cluster {azure.cluster_name} in resource group {azure.resource_group}"
        f" of subscription {azure.subscription_id}: {said}"
    )


def refused(cause: Any, azure: Azure, token_file: str) -> Exception:
    """No login: with what Entra should know about us."""
    told = _claims(token_file)
    return errors.ProvisioningFailedError(
        f"Azure refused the login: {story(cause)}; setting azure: identity clientId {azure.client_id} of"
        f" tenantId {azure.tenant_id} needs a federated credential with issuer {told.get('iss')},"
        f" subject {told.get('sub')} and audience {told.get('aud')}"
    )


def answered(cause: Any, azure: Azure, *, made_if_missing: bool, ordered: bool) -> Exception:
    """Any other answer; `made_if_missing`: a failed precondition says that what was to be made is there.

    `ordered`: the Workspace's own words were sent. Only then can they be what Azure never takes.
    """
    said = story(cause)
    if cause.status_code == 412 and made_if_missing:
        return ExistsError(said)
    if cause.status_code == 412 or _BUSY.search(said):
        return BusyError(said)
    if ordered and cause.status_code == 400 and _code(cause) == "InvalidParameter" and not _PASSING.search(said):
        field = next((ours for word, ours in _FIELDS.items() if word in said.lower()), "resource")
        return errors.InvalidWorkspaceError(
            f"{field}: Azure takes no such nodes: {said}; delete the Workspace and apply it anew with a {field} that"
            " Azure takes"
        )
    advice = ""
    if "AuthorizationFailed" in said:
        advice = (
            f"; give identity clientId {azure.client_id} a role with this right on AKS cluster {azure.cluster_name}"
        )
    refused = ordered and cause.status_code in {400, 403, 409} and not advice and _REFUSED.search(said)
    kind = nodes.RefusedError if refused else errors.ProvisioningFailedError
    return kind(f"Azure answered {cause.status_code}: {said}{advice}")


def story(error: Any) -> str:
    """Codes and messages, outer and inner, each once: the true cause is often in the details."""
    parts: list[str] = []
    todo: list[Any] = [getattr(error, "error", None) or error]
    while todo:
        node = todo.pop(0)
        parts += [str(text) for text in (getattr(node, "code", None), getattr(node, "message", None)) if text]
        todo += getattr(node, "details", None) or []
    return _TRACE.sub("", ": ".join(dict.fromkeys(parts)) or str(error))


def _code(error: Any) -> str:
    return str(getattr(getattr(error, "error", None), "code", None) or "")


def _claims(token_file: str) -> dict[str, Any]:
    """What our own token says of us, unverified: only for people to read."""
    try:
        body = Path(token_file).read_text(encoding="ascii").split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    except (OSError, ValueError, IndexError):
        return {}
    return claims if isinstance(claims, dict) else {}
