"""What is observed of a Workspace, in short."""

from kaito_hera import intent
from kaito_hera.observe import observe
from kaito_hera.settings import Azure, Settings
from kaito_hera.status import Satisfied, Status, WorkflowStatus
from tests import making

AZURE = Azure(tenant_id="t", client_id="c", subscription_id="s", resource_group="g", cluster_name="a", location="l")
AKS = Settings(node_provider="aks", azure=AZURE, argo_url="https://argo")


def recorded(workspace, attempt=1, kind="serve", **more):
    name = making.workflow(workspace, attempt)["metadata"]["name"]
    current = WorkflowStatus(name=name, kind=kind, attempt=attempt, generation=1)
    return Status(workflow=current, **more)


def observed(workspace, before, settings=AKS, **objects):
    seen = making.live(**objects)
    return observe(making.parsed(workspace), before, seen, settings)


def said(status):
    return {c.type: (c.status, c.reason) for c in status.conditions}


def reached(workspace, *parts):
    wanted = intent.of(making.parsed(workspace))
    return Satisfied(**{part: getattr(wanted, part) for part in parts})
