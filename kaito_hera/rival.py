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
_CHART = "app.kubernetes.io/name=workspace"
"""On what KAITO's Helm chart installs, whatever the release is called; others may call something so too."""
_MARK = "PRESET_REGISTRY_NAME"
"""Environment variable that the chart gives to the controller."""


def found(cluster: clusters.Cluster) -> str:
    """What shows that KAITO is installed here; empty when nothing does."""
    seen = ""
    if cluster.get(_WEBHOOKS, _WEBHOOK) is not None:
        seen = f"ValidatingWebhookConfiguration {_WEBHOOK}"
    for deployment in cluster.items(clusters.DEPLOYMENT, labels=_CHART):
        if _is_controller(deployment):
            seen = "Deployment {namespace}/{name}".format_map(deployment["metadata"])
    return seen and (
        f"KAITO is installed here ({seen}); scale its controller to 0 and delete its webhook, as argo/MIGRATING.md"
        " says, and this operator begins. No `helm uninstall` while there are Workspaces: it deletes all of them"
    )


def _is_controller(deployment: clusters.Object) -> bool:
    """Whether it is KAITO's and runs; scaled to zero it acts on nothing."""
    spec = deployment["spec"]
    variables = [v["name"] for c in spec["template"]["spec"]["containers"] for v in c.get("env", [])]
    return _MARK in variables and spec.get("replicas", 1) > 0
