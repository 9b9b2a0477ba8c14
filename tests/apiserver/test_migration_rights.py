"""What a take-over may be asked for with fewer rights than the tests' own."""

import pytest
import yaml

from kaito_hera import cluster as clusters
from kaito_hera import errors, inherited, rollout
from kaito_hera.api import Workspace
from kaito_hera.nodes import claims
from kaito_hera.run import Run
from tests.apiserver.kaito import CLAIM, order, want_of
from workflows import asks


@pytest.fixture
def connected(kubeconfig, kubectl, tmp_path, monkeypatch):
    """Connect with no more rights than a service account has."""

    def connect(namespace, account):
        config = yaml.safe_load(kubeconfig.read_text())
        token = kubectl("-n", namespace, "create", "token", account).stdout.strip()
        config["users"][0]["user"] = {"token": token}
        restricted = tmp_path / "kubeconfig"
        restricted.write_text(yaml.safe_dump(config))
        with monkeypatch.context() as patch:
            patch.setenv("KUBECONFIG", str(restricted))
            return clusters.Cluster.connect()

    return connect


@pytest.fixture
def as_steps(cluster, connected):
    return connected("kaito-hera", "kaito-hera-steps")


@pytest.fixture
def limited(connected, kubectl, namespace):
    """As somebody who sees Workspaces and nothing of Karpenter's."""
    kubectl("-n", namespace, "create", "serviceaccount", "limited")
    kubectl("-n", namespace, "create", "role", "limited", "--verb=get", "--resource=workspaces.kaito.sh")
    kubectl("-n", namespace, "create", "rolebinding", "l", "--role=limited", f"--serviceaccount={namespace}:limited")
    return connected(namespace, "limited")


def test_the_steps_rights_are_enough_for_all_of_it(karpenter, as_steps, namespace, stored, settings, kaito, cloud):
    name = kaito.claim("ws1")
    kaito.claim("ws2", ready=False, away=1200)
    kaito.server(inherited.STATEFUL_SET)
    kaito.services()
    kaito.job("Failed")
    provider = claims.Inheriting(cloud, as_steps, (namespace, "w"), patience=0.0)
    order(provider, want_of(stored))
    assert cloud.ordered == []
    workspace = Workspace.parse(stored)
    run = Run(as_steps, workspace, settings, provider)
    rollout.apply(run, asks.serving.server(run, ""), run.placement())
    assert as_steps.get(clusters.JOB, "w", namespace) is None
    assert provider.release(workspace.metadata.uid) is False
    assert "deletionTimestamp" in kaito.cluster.get(CLAIM, name)["metadata"]
    with pytest.raises(errors.ForbiddenError):
        as_steps.items(clusters.SECRET, namespace)


@pytest.mark.parametrize("taken", [False, True], ids=["ours", "taken-over"])
def test_who_may_not_see_karpenter_s_kinds_gives_back_what_was_bought(
    karpenter, cluster, limited, namespace, stored, cloud, taken
):
    told = {"status": {"nodes": {"inherited": taken}}}
    cluster.patch(clusters.WORKSPACE, "w", namespace, told, subresource="status")
    provider = claims.Inheriting(cloud, limited, (namespace, "w"))
    uid = stored["metadata"]["uid"]
    if taken:
        with pytest.raises(errors.ForbiddenError):
            provider.release(uid)
    else:
        order(provider, want_of(stored, count=2))
        assert cloud.ordered == [2]
        assert provider.release(uid) is True
    assert cloud.released == [uid]
