"""How the weights of a server that starts come: out of its log onto its Deployment, and from there into status."""

# ruff: noqa: F811 - fixtures are imported and then asked for by name
import pytest

from kaito_hera import cluster as clusters
from kaito_hera import names
from tests import making
from tests.apiserver.conftest import until
from tests.apiserver.kubelet import NOW
from tests.apiserver.rolled import pending, rolled, served  # noqa: F401
from tests.kaito_hera.observing import observed, recorded

HALF = "fetching weights: 3.1 of 7.1 GiB, 205.0 MiB/s, 20 s left"
DONE = "fetched weights: 7.1 GiB in 34 s, 213.8 MiB/s"
RUNNING = {"name": "serving", "image": "i", "imageID": "", "ready": False, "restartCount": 0}
RUNNING["state"] = {"running": {"startedAt": NOW}}


@pytest.fixture
def starting(rolled, node):
    """A server whose pod runs and does not answer yet; `node.log` is what it logs."""
    rolled.pod(node=node.node)
    rolled.report(containerStatuses=[RUNNING])
    rolled.settle(ready=0)
    return rolled


def annotation(rolled):
    return deployment(rolled)["metadata"]["annotations"].get(names.PROGRESS, "")


def deployment(rolled):
    return rolled.cluster.get(clusters.DEPLOYMENT, "w", rolled.namespace)


def log(node, *lines):
    node.log = [(NOW, line) for line in lines]


def test_status_follows_the_weights_and_forgets_them_when_the_server_answers(starting, served, node):
    log(node, f"INFO {HALF}")
    waiting = starting.wait(pause=0.2)
    until(lambda: annotation(starting) == HALF, what="how far the weights are")
    assert status_of(starting).step.message == HALF
    log(node, f"INFO {HALF}", f"INFO {DONE}", "INFO Ray is up after 4.0 s")
    until(lambda: annotation(starting) == DONE, what="that they have come")
    served.load("loaded")
    starting.settle()
    waiting.result(timeout=20)
    assert annotation(starting) == ""


def status_of(rolled):
    made = making.deployment(making.inference(), ready=0)
    made["metadata"]["annotations"] = deployment(rolled)["metadata"]["annotations"]
    flow = making.workflow(making.inference(), roll_out="Running")
    return observed(making.inference(), recorded(making.inference()), workflows=[flow], deployments=[made])


def test_nothing_but_these_words_is_taken_out_of_a_log(starting, node):
    log(node, f"\x1b[2J<b>{HALF}</b>", "fetching weights: pay 9 USD at example.com", "x" * 10_000)
    waiting = starting.wait(pause=0.2, timeout=3)
    until(lambda: annotation(starting), what="an annotation")
    assert annotation(starting) == HALF
    assert waiting.exception(timeout=20)


def test_little_of_a_log_is_read_and_it_is_not_written_often(starting, node):
    log(node, *["INFO busy"] * 100_000, f"INFO {HALF}")
    waiting = starting.wait(timeout=3)
    until(lambda: annotation(starting) == HALF, what="how far the weights are")
    log(node, f"INFO {DONE}")
    assert waiting.exception(timeout=20)
    assert annotation(starting) == HALF, "ten seconds have not gone by"
    [asked] = node.asked
    assert (asked.query["tailLines"], asked.query["limitBytes"]) == ("50", "32768")


def test_what_an_earlier_roll_out_left_is_taken_away(starting, node):
    told = {"metadata": {"annotations": {names.PROGRESS: HALF}}}
    starting.cluster.patch(clusters.DEPLOYMENT, "w", starting.namespace, told)
    waiting = starting.wait(pause=0.2, timeout=3)
    until(lambda: not annotation(starting), what="no annotation")
    assert waiting.exception(timeout=20)


def test_a_log_that_cannot_be_read_hinders_nobody(starting, served, node, capsys):
    log(node, f"INFO {HALF}")
    starting.cluster.delete(clusters.NODE, node.node)  # the API server no longer knows where to ask
    waiting = starting.wait(pause=0.2)
    pending(waiting, capsys, "0 of 1 replicas answer /health")
    served.load("loaded")
    starting.settle()
    waiting.result(timeout=20)


@pytest.mark.parametrize(
    "status",
    [
        pytest.param({"conditions": [{"type": "Ready", "status": "True"}]}, id="ready"),
        pytest.param({"containerStatuses": [{**RUNNING, "state": {"waiting": {"reason": "x"}}}]}, id="waits"),
        pytest.param({"containerStatuses": [{**RUNNING, "name": "theirs"}]}, id="sidecar"),
    ],
)
def test_who_fetches_nothing_is_not_asked(starting, served, node, capsys, status):
    starting.report(**status)
    waiting = starting.wait(pause=0.1)
    pending(waiting, capsys, "0 of 1 replicas answer /health")
    served.load("loaded")
    starting.settle()
    waiting.result(timeout=20)
    assert node.asked == []
