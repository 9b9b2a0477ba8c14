"""The lock on an AKS cluster: one name per cluster, which Kubernetes takes whatever Azure allows."""

import re

from kaito_hera.run import lock_name
from kaito_hera.settings import Azure

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
