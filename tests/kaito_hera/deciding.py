"""A Workspace's status in short, and what is decided on it."""

from kaito_hera import intent
from kaito_hera.decide import decide
from kaito_hera.observe import observe
from kaito_hera.settings import Azure, Settings
from kaito_hera.status import Satisfied, Status, WorkflowStatus
from tests import making

AZURE = Azure(tenant_id="t", client_id="c", subscription_id="s", resource_group="g", cluster_name="a", location="l")
AKS = Settings(node_provider="aks", azure=AZURE)


def satisfied(workspace, *parts):
    wanted = intent.of(making.parsed(workspace))
    trained = intent.trained(making.parsed(workspace))
    return Satisfied(**{part: trained if part == "trained" else getattr(wanted, part) for part in parts})


def status(workspace, *parts, attempt=1, kind="serve", phase="Running", failures=0, generation=1, **more):
    name = making.workflow(workspace, attempt)["metadata"]["name"]
    current = WorkflowStatus(
        name=name,
        kind=kind,
        attempt=attempt,
        generation=generation,
        annotated=making.parsed(workspace).annotated,
        phase=phase,
        failures=failures,
    )
    return Status(workflow=current, satisfied=satisfied(workspace, *parts), **more)


def decided(workspace, before, seen, settings=AKS):
    """As reconcile does it: observe until nothing changes, then decide."""
    w = making.parsed(workspace)
    after = observe(w, before, seen, settings)
    assert observe(w, after, seen, settings) == after, "observing twice must change nothing"
    return decide(w, after, seen, settings)
