from kaito_hera import api
from kaito_hera.decide import Start, decide
from kaito_hera.intent import Parts
from kaito_hera.observe import observe
from tests import making
from tests.kaito_hera.deciding import AKS, decided, status

ALL_TO_SERVE = Parts(nodes=True, serve=True)


def stalled():
    """A Workspace that cannot go on, and what is seen of it."""
    workspace = making.inference()
    message = making.failed_message("PushForbidden", "grant AcrPush", retryable=False)
    failed = making.workflow(workspace, phase="Failed", preflight=("Failed", message), age=1000)
    seen = making.live(workflows=[failed])
    return workspace, observe(making.parsed(workspace), status(workspace), seen, AKS), seen


def test_a_stalled_workspace_says_how_to_go_on():
    _, current, _ = stalled()
    assert current.is_true("Stalled")
    said = current.condition("Reconciling").message
    assert "kubectl -n team annotate workspace w --overwrite kaito.sh/retry=" in said


def test_a_word_of_the_user_starts_another_attempt_once():
    workspace, current, seen = stalled()
    asked = {**workspace, "metadata": {**workspace["metadata"], "annotations": {api.RETRY_ANNOTATION: "now"}}}
    assert decided(asked, current, seen) == [Start(ALL_TO_SERVE, failures=0)]
    assert not observe(making.parsed(asked), current, seen, AKS).is_true("Stalled")
    again = current.model_copy(update={"workflow": current.workflow.model_copy(update={"retry": "now"})})
    assert observe(making.parsed(asked), again, seen, AKS).is_true("Stalled")
    assert decide(making.parsed(asked), again, seen, AKS) == []


def test_a_word_of_the_user_disturbs_nothing_that_serves():
    workspace = making.inference(annotations={api.RETRY_ANNOTATION: "now"})
    up = making.live(
        workflows=[making.workflow(workspace, phase="Succeeded")],
        nodes=[making.node(workspace)],
        deployments=[making.deployment(workspace)],
    )
    assert decided(workspace, status(workspace, "nodes", "serve", phase="Succeeded"), up) == []
