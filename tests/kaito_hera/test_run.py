"""Who gives nodes back; the lock on an AKS cluster: one name for each, which Kubernetes takes whatever Azure allows."""

import re

import pytest

from kaito_hera import errors
from kaito_hera.nodes.byo import ByoProvider
from kaito_hera.run import Run, lock_name, releaser
from kaito_hera.settings import Azure, Settings
from kaito_hera.status import NodesStatus, Status
from tests import making

AZURE = Azure(
    tenant_id="t", client_id="c", subscription_id="s", resource_group="g", cluster_name="my_AKS", location="l"
)


def test_a_name_that_only_azure_allows_becomes_one_that_kubernetes_takes():
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", lock_name(AZURE))


def test_it_is_the_same_for_the_same_cluster_alone():
    same = AZURE.model_copy(update={"cluster_name": "MY_aks", "client_id": "other"})
    assert lock_name(same) == lock_name(AZURE)
    for change in ({"cluster_name": "x"}, {"resource_group": "x"}, {"subscription_id": "x"}):
        assert lock_name(AZURE.model_copy(update=change)) != lock_name(AZURE)


class Cluster:
    """Has the one Workspace."""

    def __init__(self, found):
        self._found = found

    def get(self, *_):
        return self._found


def run(*, held, **settings):
    workspace = {**making.inference(), "status": Status(nodes=NodesStatus(held=held)).dump()}
    cluster = Cluster(workspace)
    return Run(cluster, making.parsed(workspace), Settings(**settings), ByoProvider(cluster))


def test_what_aks_made_is_not_taken_for_given_back_by_who_never_made_any():
    assert isinstance(releaser(run(held=False)), ByoProvider)
    with pytest.raises(errors.ConfigInvalidError, match=r"nodeProvider: byo, but AKS made nodes for Workspace team/w"):
        releaser(run(held=True))
    assert releaser(run(held=True, azure=AZURE)).makes_nodes
    gone = run(held=True)
    gone.cluster._found = None
    assert isinstance(releaser(gone), ByoProvider)
