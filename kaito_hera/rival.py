"""KAITO's own controller in the same cluster: two must never act on the same Workspaces, so ours waits and says so."""

from kaito_hera import cluster as clusters

_WEBHOOK = "validation.workspace.kaito.sh"
"""KAITO registers this at its start and fails every write of a Workspace while it cannot be reached."""

_WEBHOOKS = clusters.Kind(
    "ValidatingWebhookConfiguration",
    "validatingwebhookconfigurations",
    group="admissionregistration.k8s.io",
    namespaced=False,
)


def found(cluster: clusters.Cluster) -> str:
    """What shows that KAITO is installed here; empty when nothing does."""
    if cluster.get(_WEBHOOKS, _WEBHOOK) is None:
        return ""
    return f"KAITO is installed here (ValidatingWebhookConfiguration {_WEBHOOK}); uninstall it and this operator begins"
