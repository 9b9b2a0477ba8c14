"""Azure as the SDK finds the real one: by its public names, with a federated login, here through a proxy."""

import contextlib
import os
import threading

import pytest

from kaito_hera import nodes
from kaito_hera.nodes.aks import AksProvider
from kaito_hera.settings import Azure
from tests import making
from tests.cluster.simulators.azure.issuer import Issuer
from tests.simulators import azure, paper
from tests.simulators.conftest import tls  # noqa: F401
from tests.wire import Wire

ACCOUNT = azure.ACCOUNT
AZURE = Azure(
    tenant_id=ACCOUNT.tenant,
    client_id=ACCOUNT.client,
    subscription_id=ACCOUNT.subscription,
    resource_group=ACCOUNT.resource_group,
    cluster_name=ACCOUNT.aks,
    location=ACCOUNT.location,
)
WANT = nodes.wanted(making.parsed(making.inference()))


def order(provider, want=WANT, *, still_wanted=lambda: None, ready=False):
    """An order of a step whose Workspace stays; `ready`: whether a node of it is Ready."""
    return provider.order(want, still_wanted=still_wanted, any_ready=lambda: ready)


class Turns:
    """A Lease without a cluster: one holder at a time."""

    def __init__(self):
        self._lock = threading.Lock()

    def acquire(self):
        return self._lock.acquire(blocking=False)

    def release(self):
        self._lock.release()


class World:
    """The cloud, the way to it, and the cluster whose service account logs in."""

    def __init__(self, cloud, wire, cluster, folder):
        self.cloud, self.wire, self.cluster = cloud, wire, cluster
        self._token = folder / "token"
        self._turns = Turns()
        self._providers = []
        self.log_in(cluster.token())

    def log_in(self, token):
        """What the kubelet mounts; None for nothing."""
        self._token.unlink(missing_ok=True)
        if token is not None:
            self._token.write_text(token)

    def provider(self, *, turns=None, busy_limit=20.0, **settings):
        provider = AksProvider(
            AZURE.model_copy(update=settings), turns or self._turns, pause=0.01, busy_limit=busy_limit
        )
        self._providers.append(provider)
        return provider

    def close(self):
        for provider in self._providers:
            if "_client" in vars(provider):
                provider._client.close()

    def writes(self):
        """Method and status of each write of a pool."""
        return [
            (line["method"], line["status"]) for line in self.cloud.requests() if line["method"] in {"PUT", "DELETE"}
        ]

    def pools(self):
        return {pool.name: pool for pool in self.cloud.pools.list(*azure.WHERE) if pool.name != "nodepool1"}


@contextlib.contextmanager
def world(tls, folder, **options):  # noqa: F811
    cluster = paper.Issuer()
    with cluster.api_server(tls, folder / "kubeconfig"):
        verifier = Issuer(folder / "kubeconfig")
        with (
            azure.simulated(tls, folder, verifier=verifier, **options) as cloud,
            Wire(int(cloud.url.rpartition(":")[2]), proxy=True) as wire,
        ):
            found = World(cloud, wire, cluster, folder)
            yield found
            found.close()


@pytest.fixture
def surroundings(monkeypatch):
    """Sets what a pod's environment would have; `os.environ` then leads every child there too."""

    def surround(tls, folder, wire):  # noqa: F811
        for name in ("https_proxy", "no_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{wire.port}")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tls.ca))
        monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", str(folder / "token"))
        return os.environ

    return surround


@pytest.fixture
def aks(tls, tmp_path, surroundings):  # noqa: F811
    with world(tls, tmp_path) as found:
        surroundings(tls, tmp_path, found.wire)
        yield found
