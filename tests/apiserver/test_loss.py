"""`kaito-hera loss` of a Workspace: what its pods' logs tell."""

import json

import pytest

from kaito_hera import cluster as clusters
from kaito_hera import jobs, names, nodes
from kaito_hera.api import Workspace
from kaito_hera.run import Run
from tests import making
from tests.apiserver.test_jobs import task
from tuning.config import Progress
from workflows import __main__ as command
from workflows import asks
from workflows.commands.curves import Curve
from workflows.outlook.documents import UnreadableError

STAMP = "2026-01-01T00:00:{:02}.000000000Z"


@pytest.fixture
def loss(namespace, capsys):
    def run(*more):
        parsed = command._parser().parse_args(["loss", "w", "-n", namespace, *more])
        parsed.run(parsed)
        return capsys.readouterr().out

    return run


@pytest.fixture
def workspace(apply):
    return Workspace.parse(apply(making.tuning()))


@pytest.fixture
def start(cluster, namespace, workspace, settings, node):
    """Makes the pod of an attempt, which logs these losses by step."""

    def begin(attempt, losses, **more):
        made = cluster.create(clusters.JOB, jobs.manifest(workspace, task(workspace, settings, attempt)))
        node.start(made)
        node.log = [
            (STAMP.format(at), Progress(phase="train", percent=9, step=step, max_steps=9, loss=loss, **more).line())
            for at, (step, loss) in enumerate(losses.items())
        ]
        node.log.insert(1, (STAMP.format(0), "other words"))

    return begin


def curve(text):
    found = json.loads(text)
    return Curve(
        *(tuple(map(tuple, found[name])) for name in ("losses", "evals")), tuple(found["resumed"]), found["steps"]
    )


def test_a_running_workspace_is_a_curve(loss, start):
    start(1, {1: 3.0, 2: 2.0, 3: 1.0})
    assert curve(loss("-o", "json")) == Curve(((1, 3.0), (2, 2.0), (3, 1.0)), (), (), 9)
    assert "loss 3 at step 1, 1 at step 3" in loss()


def test_one_that_has_not_begun_has_no_curve_yet(loss, workspace):
    assert "no loss is known yet" in loss()


def test_one_that_tunes_nothing_says_so(loss, apply):
    apply(making.inference())
    with pytest.raises(UnreadableError, match="tunes nothing"):
        loss()


def test_what_was_read_of_a_pod_is_not_asked_for_again(cluster, workspace, start, node):
    from workflows.commands.logs import Logs

    logs = Logs(cluster)
    body = cluster.get(clusters.WORKSPACE, "w", workspace.metadata.namespace)
    start(1, {1: 3.0, 2: 2.0})
    assert [step for step, _ in logs.curve(body).losses] == [1, 2]
    node.log = [(STAMP.format(9), Progress(phase="train", percent=9, step=3, loss=1.0).line())]
    assert [step for step, _ in logs.curve(body).losses] == [1, 2, 3]
    assert node.asked[-1].query["sinceTime"] == "2026-01-01T00:00:01Z"


def test_the_pod_says_where_its_figures_are(cluster, workspace, settings):
    run = Run(cluster, workspace, settings, provider=None)
    template = asks.tuning.task(run, 1, nodes.Placement(labels={"a": "b"})).template
    (container,) = template["spec"]["containers"]
    assert container["ports"] == [{"name": "metrics", "containerPort": 5000}]
    scraped = {key.partition("/")[2]: value for key, value in template["metadata"]["annotations"].items()}
    assert scraped.items() >= {"scrape": "true", "port": "5000", "path": "/metrics"}.items()
    asked = json.loads(template["metadata"]["annotations"][names.CONFIG])
    assert asked["metrics_port"] == 5000
