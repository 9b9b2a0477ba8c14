"""Labels are anyone's to write: an object counts only where we would have made it."""

import pytest

from kaito_hera import cluster as clusters
from kaito_hera import names, watched
from tests import making

OPERATOR = "kaito-hera"


@pytest.mark.parametrize("kind", [clusters.JOB, clusters.DEPLOYMENT, clusters.POD], ids=lambda kind: kind.name)
@pytest.mark.parametrize(
    ("role", "namespace", "counts"),
    [
        ("tuning", "team", True),
        ("serving", "team", True),
        ("tuning", "attacker", False),
        ("tuning", OPERATOR, False),
        ("release", OPERATOR, True),
        ("release", "team", False),
        ("release", "attacker", False),
        ("step", OPERATOR, True),
        ("step", "team", False),
    ],
)
def test_only_where_we_make_it(kind, role, namespace, counts):
    obj = making.job(making.inference(), role=role, namespace=namespace)
    assert watched.made(kind, OPERATOR).key(obj) == (("team", "w") if counts else None)


def test_a_deployment_without_a_role_is_the_workspace_s():
    deployment = making.deployment(making.inference())
    assert watched.made(clusters.DEPLOYMENT, OPERATOR).key(deployment) == ("team", "w")
    deployment["metadata"]["namespace"] = "attacker"
    assert watched.made(clusters.DEPLOYMENT, OPERATOR).key(deployment) is None


def test_workflows_are_looked_for_in_the_operator_s_namespace_alone():
    flow = making.workflow(making.inference())
    assert watched.workflows(OPERATOR).namespace == OPERATOR
    assert watched.workflows(OPERATOR).key(flow) == ("team", "w")
    assert flow["metadata"]["labels"][names.NAMESPACE] == "team"
