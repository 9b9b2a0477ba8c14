"""Nodes of a Workspace whose finalizer somebody took away, with a real API server."""

import datetime
import json
import uuid

import pytest

from kaito_hera import cluster as clusters
from kaito_hera import errors, names
from kaito_hera.live import Live
from kaito_hera.settings import Settings
from kaito_hera.sweep import Sweeper
from tests import making
from tests.apiserver.conftest import until
from tests.apiserver.test_watcher import first_workflow, play, workflows
from workflows.plan import plan

OPERATOR = "kaito-hera"
START = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


def node(namespace, uid):
    labels = {names.WORKSPACE: "w", names.NAMESPACE: namespace, names.UID: uid}
    return {"metadata": {"name": f"node-{uid[:8]}", "labels": labels}}


def look(sweeper, namespace, *uids, obj=None, minutes=0, flows=()):
    now = START + datetime.timedelta(minutes=minutes)
    seen = Live(now=now, nodes=tuple(node(namespace, uid) for uid in uids), workflows=tuple(flows))
    return sweeper.look((namespace, "w"), obj, seen)


def test_they_are_given_back_after_a_while_and_the_living_one_s_are_not(cluster, namespace, stored, settings):
    sweeper, gone = Sweeper(cluster, settings, plan), str(uuid.uuid4())
    both = gone, stored["metadata"]["uid"]
    assert look(sweeper, namespace, *both, obj=stored) == 600
    assert look(sweeper, namespace, *both, obj=stored, minutes=9) == 60
    assert workflows(cluster, namespace) == []
    look(sweeper, namespace, *both, obj=stored, minutes=10)
    [flow] = workflows(cluster, namespace)
    assert flow["metadata"]["name"] == f"{namespace}-w-{gone[:5]}-g0-a1"
    assert (flow["metadata"]["labels"][names.UID], flow["metadata"]["labels"][names.WORKFLOW]) == (gone, "release")
    given = {p["name"]: p["value"] for p in flow["spec"]["arguments"]["parameters"]}
    assert json.loads(given["workspace"])["metadata"]["uid"] == gone
    with pytest.raises(clusters.ConflictError):
        look(sweeper, namespace, *both, obj=stored, minutes=11)  # it is there, and was not seen yet
    assert look(sweeper, namespace, *both, obj=stored, minutes=11, flows=[flow]) is None
    done = {**flow, "status": {"phase": "Succeeded", "finishedAt": "2026-01-01T00:12:00Z"}}
    assert look(sweeper, namespace, obj=stored, minutes=13, flows=[done]) is None
    assert workflows(cluster, namespace) == []


def test_the_uid_of_a_workspace_that_is_there_is_never_given_back_whatever_name_is_beside_it(
    cluster, namespace, stored, settings
):
    sweeper = Sweeper(cluster, settings, plan)
    for minutes in (0, 60):
        look(sweeper, namespace, stored["metadata"]["uid"], minutes=minutes)
    assert workflows(cluster, namespace) == []


def test_nothing_is_given_back_while_workspaces_cannot_be_listed(cluster, namespace, settings, wire):
    sweeper, gone = Sweeper(wire.cluster, settings, plan), str(uuid.uuid4())
    look(sweeper, namespace, gone)
    wire.whole = False
    wire.cut()
    with pytest.raises(errors.KaitoError):
        look(sweeper, namespace, gone, minutes=60)
    wire.whole = True
    assert workflows(cluster, namespace) == []


def test_nodes_that_went_and_came_back_wait_as_long_again(cluster, namespace, settings):
    sweeper, gone = Sweeper(cluster, settings, plan), str(uuid.uuid4())
    look(sweeper, namespace, gone)
    assert look(sweeper, namespace, minutes=5) is None
    assert look(sweeper, namespace, gone, minutes=10) == 600


def test_brought_nodes_are_nobody_s_to_give_back(cluster, namespace):
    sweeper, gone = Sweeper(cluster, Settings(node_provider="byo"), plan), str(uuid.uuid4())
    assert [look(sweeper, namespace, gone, minutes=minutes) for minutes in (0, 60)] == [None, None]
    assert workflows(cluster, namespace) == []


def test_a_release_goes_on_though_the_finalizer_is_taken_away_meanwhile(cluster, apply, namespace, watcher):
    watcher()
    stored = apply(making.inference())
    first_workflow(cluster, namespace)
    cluster.create(clusters.NODE, node(namespace, stored["metadata"]["uid"]))
    cluster.delete(clusters.WORKSPACE, "w", namespace)
    release = until(lambda: _release(cluster, namespace), what="a release")
    play(cluster, release, "Running")
    cluster.patch(clusters.WORKSPACE, "w", namespace, {"metadata": {"finalizers": None}})
    other = making.workflow(making.inference(namespace=namespace), 9)
    other["metadata"]["labels"][names.UID] = stored["metadata"]["uid"]
    cluster.create(clusters.WORKFLOW, {"metadata": {**other["metadata"], "namespace": OPERATOR}, "spec": {}})
    until(lambda: _names(cluster, namespace) == [release["metadata"]["name"]], what="the release alone")
    cluster.delete(clusters.NODE, f"node-{stored['metadata']['uid'][:8]}")
    play(cluster, release, "Succeeded", release={})
    until(lambda: not workflows(cluster, namespace), what="no Workflow left")


def _release(cluster, namespace):
    found = workflows(cluster, namespace)
    return next((w for w in found if w["metadata"]["labels"][names.WORKFLOW] == "release"), None)


def _names(cluster, namespace):
    return [w["metadata"]["name"] for w in workflows(cluster, namespace)]
