"""azure-identity against Entra: who gets a token, what the others are told, and what ARM says without one."""

import time

import pytest
import requests
from azure.core.exceptions import ClientAuthenticationError
from azure.identity import WorkloadIdentityCredential

from tests.cluster.simulators.azure.issuer import Issuer
from tests.simulators import azure, paper


@pytest.fixture(params=["ec", "rsa"])
def cluster(tls, tmp_path, request):
    """A cluster's API server; its keys are on curve P-256 or RSA."""
    cluster = paper.Issuer(request.param)
    with cluster.api_server(tls, tmp_path / "kubeconfig"):
        yield cluster


@pytest.fixture
def logged_in(tls, tmp_path, cluster):
    """Starts a cloud whose client logs in with a projected token."""

    def start(token, *, tenant=azure.ACCOUNT.tenant, client=azure.ACCOUNT.client, **more):
        (tmp_path / "token").write_text(token)

        def credential(server):
            return WorkloadIdentityCredential(
                tenant_id=tenant,
                client_id=client,
                token_file_path=str(tmp_path / "token"),
                authority=f"https://localhost:{server.port}",
                connection_verify=str(tls.ca),
                retry_total=0,
            )

        verifier = Issuer(tmp_path / "kubeconfig")
        return azure.simulated(tls, tmp_path, verifier=verifier, credential=credential, **more)

    return start


def pools(cloud):
    return [pool.name for pool in cloud.pools.list(*azure.WHERE)]


def test_a_federated_service_account_may_ask(logged_in, cluster):
    with logged_in(cluster.token()) as cloud:
        assert pools(cloud) == ["nodepool1"]
        told = [(line["method"], line["path"].partition("?")[0], line["status"]) for line in cloud.requests()]
    assert told == [
        ("POST", f"/{azure.ACCOUNT.tenant}/oauth2/v2.0/token", 200),
        ("GET", f"{azure.ACCOUNT.cluster_id}/agentPools", 200),
    ]


@pytest.mark.parametrize(
    ("claims", "number", "seen"),
    [
        pytest.param({"sub": "system:serviceaccount:team:default"}, 700213, "system:serviceaccount:team:default"),
        pytest.param({"aud": ["https://kubernetes.default.svc"]}, 700212, "https://kubernetes.default.svc"),
        pytest.param({"iss": "https://another.cluster"}, 700211, "https://another.cluster"),
        pytest.param({"exp": 1000000000}, 700024, "valid time range"),
        pytest.param({"kid": "key-2"}, 50013, "key-2"),
    ],
)
def test_another_token_is_refused_with_its_reason(logged_in, cluster, claims, number, seen):
    with logged_in(cluster.token(**claims)) as cloud:
        with pytest.raises(ClientAuthenticationError) as refused:
            pools(cloud)
        assert f"AADSTS{number}: " in refused.value.message
        assert seen in refused.value.message


def test_a_token_signed_with_a_foreign_key_is_refused(logged_in, cluster):
    forged = paper.Issuer("rsa" if cluster.algorithm == "RS256" else "ec").token()
    with logged_in(forged) as cloud, pytest.raises(ClientAuthenticationError, match="AADSTS50013: "):
        pools(cloud)


def test_no_token_at_all_is_refused(logged_in):
    with logged_in("not.a.token") as cloud, pytest.raises(ClientAuthenticationError, match="AADSTS50013: "):
        pools(cloud)


@pytest.mark.parametrize(
    ("ids", "number"),
    [pytest.param({"tenant": "another"}, 90002, id="tenant"), pytest.param({"client": "another"}, 700016, id="client")],
)
def test_wrong_ids_are_named(logged_in, cluster, ids, number):
    told = f"AADSTS{number}: .*'another'"
    with logged_in(cluster.token(), **ids) as cloud, pytest.raises(ClientAuthenticationError, match=told):
        pools(cloud)


def test_arm_wants_a_token_that_still_holds(tls, tmp_path):
    with azure.simulated(tls, tmp_path) as cloud:
        url = f"{cloud.url}{azure.ACCOUNT.cluster_id}/agentPools?api-version=2026-08-01"

        def ask(**headers):
            answer = requests.get(url, headers=headers, verify=tls.ca, timeout=10)
            return answer.status_code, answer.json().get("error", {}).get("code"), "WWW-Authenticate" in answer.headers

        assert ask() == (401, "AuthenticationFailed", True)
        assert ask(Authorization="Bearer made.up.token") == (401, "InvalidAuthenticationToken", True)
        lasting, short = (azure.Bearer(cloud.state, seconds=seconds).get_token().token for seconds in (600, 1))
        assert ask(Authorization=f"Bearer {lasting}") == (200, None, False)
        time.sleep(1.1)
        assert ask(Authorization=f"Bearer {short}") == (401, "ExpiredAuthenticationToken", True)


def test_discovery_leads_to_the_token_endpoint(tls, tmp_path):
    with azure.simulated(tls, tmp_path) as cloud:
        name = {"Host": "login.microsoftonline.com"}
        instance = requests.get(f"{cloud.url}/common/discovery/instance", headers=name, verify=tls.ca, timeout=10)
        endpoint = instance.json()["tenant_discovery_endpoint"]
        assert endpoint.startswith(f"https://login.microsoftonline.com/{azure.ACCOUNT.tenant}/")
        path = endpoint.removeprefix("https://login.microsoftonline.com")
        told = requests.get(cloud.url + path, headers=name, verify=tls.ca, timeout=10).json()
        base = f"https://login.microsoftonline.com/{azure.ACCOUNT.tenant}"
        assert told["token_endpoint"] == f"{base}/oauth2/v2.0/token"
        assert requests.get(f"{cloud.url}/healthz", verify=tls.ca, timeout=10).status_code == 200
