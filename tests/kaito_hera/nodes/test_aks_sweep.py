"""A pool whose Workspace's finalizer somebody took away: its nodes tell of it, and the usual release gives it back."""

import dataclasses
import datetime
import json

from kaito_hera import nodes
from kaito_hera.api import Workspace
from kaito_hera.nodes.aks import pool_name
from kaito_hera.sweep import Sweeper
from tests import making
from tests.kaito_hera.deciding import AKS
from tests.kaito_hera.nodes.conftest import WANT, order
from workflows.plan import plan

LATER = datetime.timedelta(minutes=10)


class Paper:
    """A cluster that has these Workspaces, and keeps what is made."""

    def __init__(self, *uids):
        self._uids = uids
        self.made = []

    def items(self, kind):
        assert kind.name == "Workspace"
        return [{"metadata": {"uid": uid}} for uid in self._uids]

    def create(self, kind, obj):
        assert kind.name == "Workflow"
        self.made.append(obj)


def swept(cluster, machines):
    """Looked at twice, with nothing but the machines' own labels."""
    found = [{"metadata": {"name": name, "labels": machines.about(name)["labels"]}} for name in machines.on()]
    sweeper = Sweeper(cluster, AKS, plan)
    seen = making.live(nodes=found)
    assert sweeper.look(("team", "w"), None, seen) == LATER.total_seconds()
    assert cluster.made == []
    sweeper.look(("team", "w"), None, dataclasses.replace(seen, now=seen.now + LATER))
    return [json.loads(p["value"]) for w in cluster.made for p in w["spec"]["arguments"]["parameters"][:1]]


def test_what_the_nodes_say_is_enough_to_give_their_pool_back_and_no_other(aks):
    order(aks.provider())
    aks.cloud.until(pool_name(WANT), "Succeeded")
    [asked] = swept(Paper("another"), aks.cloud.machines)
    other = dataclasses.replace(WANT, uid="99999999-2222-3333-4444-555555555555", workspace="team/other", name="other")
    order(aks.provider(), other)
    aks.cloud.until(pool_name(other), "Succeeded")
    workspace = Workspace.parse(asked)
    assert workspace.key == "team/w"
    nodes.release(aks.provider(), workspace.metadata.uid, pause=0.02)
    assert list(aks.pools()) == [pool_name(other)]


def test_nodes_labelled_with_the_uid_of_a_workspace_that_is_there_are_left_alone(aks):
    order(aks.provider())
    aks.cloud.until(pool_name(WANT), "Succeeded")
    assert swept(Paper("another", making.UID), aks.cloud.machines) == []
