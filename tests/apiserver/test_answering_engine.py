"""How a server answers, by its own word: noted on its Deployment, and in status from there."""

# ruff: noqa: F811 - fixtures are imported and then asked for by name
import pytest

from kaito_hera import cluster as clusters
from kaito_hera import names
from tests import making
from tests.apiserver.rolled import pending, rolled, served  # noqa: F401
from tests.kaito_hera.observing import observed, recorded

ALONE = "one request at a time: mamba2 is not among the architectures that are batched"
ENGINE = {"concurrent_requests": 1, "context": 2048, "notes": [ALONE]}
MORE = {"kind": "sequential", "requests": 0, "features": [], "dtype": "bfloat16", "device": "cuda"}
DONE = {"preflight": "Succeeded", "provision_nodes": "Succeeded", "await_nodes": "Succeeded", "roll_out": "Succeeded"}


@pytest.fixture
def noted(rolled, served):
    """The Deployment after a roll-out of servers that say this of themselves."""

    def roll_out(**engine):
        served.load("loaded")
        if engine:
            served.body["engine"] = {**MORE, **engine}
        rolled.settle()
        rolled.wait().result(timeout=20)
        return rolled.cluster.get(clusters.DEPLOYMENT, "w", rolled.namespace)

    rolled.pod()
    return roll_out


def engine_of(deployment):
    """What status says of it."""
    made = making.deployment(making.inference())
    made["metadata"]["annotations"] = deployment["metadata"]["annotations"]
    flow = making.workflow(making.inference(), phase="Succeeded", **DONE)
    status = observed(making.inference(), recorded(making.inference()), workflows=[flow], deployments=[made])
    return status.serving.engine


def test_status_says_that_requests_are_answered_one_at_a_time_and_with_which_context(noted):
    engine = engine_of(noted(**ENGINE))
    assert (engine.concurrent_requests, engine.context, engine.notes) == (1, 2048, (ALONE,))


def test_what_the_server_before_said_goes(noted):
    assert names.ENGINE in noted(**ENGINE)["metadata"]["annotations"]
    assert engine_of(noted()) is None


def test_words_without_end_are_cut(noted):
    engine = engine_of(noted(**{**ENGINE, "notes": ["x" * 9000] * 99}))
    assert [len(note) for note in engine.notes] == [1000] * 10


def test_numbers_that_are_none_are_waited_out(noted, rolled, served, capsys):
    served.load("loaded")
    served.body["engine"] = {**MORE, **ENGINE, "context": 0}
    rolled.settle()
    waiting = rolled.wait()
    pending(waiting, capsys, "pod p: answers nonsense on /v1/models: context")
    served.body["engine"] = {**MORE, **ENGINE}
    waiting.result(timeout=20)


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"context": 1}', "[" * 100_000])
def test_an_annotation_that_somebody_has_edited_says_nothing(text):
    assert engine_of({"metadata": {"annotations": {names.ENGINE: text}}}) is None
