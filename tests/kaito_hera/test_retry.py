import pytest

from kaito_hera import api
from kaito_hera.decide import Start, decide
from kaito_hera.intent import Parts
from kaito_hera.observe import observe
from kaito_hera.status import NodesStatus
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
    annotated = making.parsed(asked).annotated
    again = current.model_copy(update={"workflow": current.workflow.model_copy(update={"annotated": annotated})})
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


def test_serving_that_is_switched_off_is_a_word_too():
    workspace = making.tuning()
    message = making.failed_message("InsufficientGPUMemory", "to serve needs 30 GiB", retryable=False)
    failed = making.workflow(workspace, kind="tune", phase="Failed", preflight=("Failed", message), age=1000)
    seen = making.live(workflows=[failed])
    current = observe(making.parsed(workspace), status(workspace, kind="tune"), seen, AKS)
    assert current.is_true("Stalled")
    assert decided(making.tuning_only(), current, seen) == [Start(Parts(nodes=True, tune=True), failures=0)]


@pytest.mark.parametrize("reason", ["Crashed", "Unexpected"])
def test_what_nobody_explains_is_tried_three_times(reason):
    workspace = making.tuning()
    message = making.failed_message(reason, "Job team/w ended with exit code 139", retryable=True)
    failed = making.workflow(workspace, kind="tune", phase="Failed", train=("Failed", message), age=1000)
    failed["status"]["finishedAt"] = making.ago(900)
    seen = making.live(workflows=[failed], nodes=[making.node(workspace)])
    before = {"kind": "tune", "nodes": NodesStatus(held=True)}
    again = Start(Parts(tune=True, serve=True), failures=2)
    assert decided(workspace, status(workspace, "nodes", failures=1, **before), seen) == [again]
    assert decided(workspace, status(workspace, "nodes", failures=2, **before), seen) == [Start(Parts(), failures=0)]


def test_a_stalled_workspace_stays_so_when_its_workflow_is_gone():
    workspace = making.inference()
    message = making.failed_message("UnknownPreset", "no such preset", retryable=False)
    failed = making.workflow(workspace, phase="Failed", preflight=("Failed", message), age=1000)
    stalled = observe(making.parsed(workspace), status(workspace), making.live(workflows=[failed]), AKS)
    assert stalled.is_true("Stalled")
    assert decided(workspace, stalled, making.live()) == []
    assert observe(making.parsed(workspace), stalled, making.live(), AKS).is_true("Stalled")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, ""),
        ({"kaito.sh/run-benchmark": "true"}, ""),
        ({"kaito.sh/tracking-secret": " ", "kaito.sh/api-key-secret": "", "kaito.sh/weights-cache": ""}, ""),
        ({"kaito.sh/serve": "false"}, "2ed27c1421e6928d"),
        ({"kaito.sh/retry": "false"}, "2f960af79c2cf719"),
    ],
)
def test_an_upgrade_does_not_take_old_annotations_for_a_new_word(given, expected):
    """Golden: what versions wrote that knew no other annotations."""
    assert making.parsed(making.inference(annotations=given)).annotated == expected


@pytest.mark.parametrize(
    "given", [("enablelb", "True"), ("bypass-resource-checks", ""), ("node-image-family", "ubuntu")]
)
def test_each_annotation_with_an_effect_is_a_word(given):
    name, value = given
    both = {"kaito.sh/serve": "false", f"kaito.sh/{name}": value}
    assert making.parsed(making.inference(annotations=both)).annotated not in {"", "2ed27c1421e6928d"}
