"""Where nothing of Karpenter's is installed."""

from kaito_hera.nodes import claims
from tests.apiserver.kaito import order, want_of


def test_there_is_nothing_to_take_over(cluster, stored, cloud, namespace):
    inheriting = claims.Inheriting(cloud, cluster, (namespace, "w"))
    assert claims.made_for(cluster, namespace, "w") == []
    order(inheriting, want_of(stored, count=2))
    assert cloud.ordered == [2]
    assert inheriting.release(stored["metadata"]["uid"]) is True
