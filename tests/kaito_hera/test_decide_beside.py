"""What stands beside a server comes back when somebody deletes it."""

import pytest

from kaito_hera import names, nodes, rayservice, rollout
from kaito_hera.actions import LookAgain, Start
from kaito_hera.intent import Parts
from kaito_hera.status import READY, RECONCILING
from tests import making
from tests.kaito_hera.deciding import AKS, decided, status
from tests.kaito_hera.observing import observed, said
from workflows import asks

OWN_POD = {**making.inference(), "inference": {"template": {"spec": {"containers": [{"name": "c", "image": "i"}]}}}}
AGAIN = [Start(Parts(serve=True), failures=0)]


def seen(workspace, *, without="", ended=1000, **more):
    """A server that answers, of which somebody has deleted something of that kind."""
    flow = making.workflow(workspace, phase="Succeeded")
    flow["status"]["finishedAt"] = making.ago(ended)
    server = making.deployment(workspace)
    beside = [obj for obj in making.beside(server) if obj["kind"] != without]
    given = {"workflows": [flow], "nodes": [making.node(workspace)], "deployments": [server], "beside": beside}
    return given | more


def reached(workspace):
    return status(workspace, "nodes", "serve", phase="Succeeded")


def next_steps(workspace, **objects):
    return decided(workspace, reached(workspace), making.live(**objects))


def waiting(workspace, secret):
    state = {"waiting": {"reason": "CreateContainerConfigError", "message": f'secret "{secret}" not found'}}
    return making.pod(workspace, "serving", phase="Pending", statuses=[{"name": "serving", "state": state}])


def test_a_roll_out_makes_the_server_and_what_is_watched_for_beside_it():
    for obj in (making.inference(), OWN_POD):
        workspace = making.parsed(obj)
        server = asks.serving.expected(workspace, AKS) if workspace.preset else None
        made = rollout.objects(workspace, AKS, server, nodes.Placement(labels={"a": "b"}))
        found = {(kind.name, each["metadata"]["name"]) for kind, each in made.items()}
        assert found == names.beside(workspace) | {("Deployment", "w")}


@pytest.mark.parametrize("kind", ["Service", "ConfigMap", "NetworkPolicy"])
def test_what_is_gone_is_rolled_out_again_and_nothing_else_is_done(kind):
    workspace = making.inference()
    assert next_steps(workspace, **seen(workspace)) == []
    assert next_steps(workspace, **seen(workspace, without=kind)) == AGAIN


def test_another_workspace_s_of_the_same_kind_does_not_count():
    workspace = making.inference()
    others = making.beside(making.deployment(making.inference(name="other")))
    whole = seen(workspace, without="Service")
    assert next_steps(workspace, **whole | {"beside": [*whole["beside"], *others]}) == AGAIN


def test_a_pod_of_the_user_s_own_has_a_service_alone():
    only = [obj for obj in making.beside(making.deployment(OWN_POD)) if obj["kind"] == "Service"]
    assert next_steps(OWN_POD, **seen(OWN_POD, beside=only)) == []
    assert next_steps(OWN_POD, **seen(OWN_POD, beside=[])) == AGAIN


def test_whoever_deletes_it_again_and_again_gets_an_attempt_a_minute():
    workspace = making.inference()
    assert next_steps(workspace, **seen(workspace, without="Service", ended=1)) == [LookAgain(59)]
    assert next_steps(workspace, **seen(workspace, without="Service", ended=61)) == AGAIN


def test_a_secret_that_a_pod_of_the_server_lacks_is_made_again_but_not_the_user_s():
    workspace = making.inference()
    assert next_steps(workspace, **seen(workspace, pods=[waiting(workspace, "w-ray-token")])) == AGAIN
    assert next_steps(workspace, **seen(workspace, pods=[waiting(workspace, "mine")])) == []


def test_a_server_with_a_long_name_over_several_nodes_is_found_by_the_name_that_it_has():
    workspace = making.inference(name="a" * 60)
    server = making.deployment(workspace)
    server["metadata"]["name"] = rayservice.name(making.parsed(workspace))
    beside = making.beside(making.deployment(workspace))
    assert server["metadata"]["name"] != workspace["metadata"]["name"]
    assert next_steps(workspace, **seen(workspace, deployments=[server], beside=beside)) == []


def test_meanwhile_it_is_ready_and_something_is_under_way():
    workspace = making.inference()
    flow = making.workflow(workspace, 2, preflight="Succeeded", roll_out="Running")
    before = reached(workspace)
    before = before.model_copy(update={"workflow": status(workspace, attempt=2).workflow})
    found = observed(workspace, before, **seen(workspace, without="Service", workflows=[flow]))
    assert said(found)[READY][0] == said(found)[RECONCILING][0] == "True"
