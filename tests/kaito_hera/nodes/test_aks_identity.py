"""Who may ask Azure: each first failure of an installation, with the remedy in its message."""

import pytest

from kaito_hera import errors
from tests import making
from tests.kaito_hera.nodes.conftest import ACCOUNT, order
from tests.simulators import paper

FEDERATED = (
    f"clientId {ACCOUNT.client} of tenantId {ACCOUNT.tenant} needs a federated credential with issuer {paper.ISSUER},"
)


def refusal(aks, **settings):
    with pytest.raises(errors.ProvisioningFailedError) as refused:
        order(aks.provider(**settings))
    with pytest.raises(errors.ProvisioningFailedError) as unreleased:
        aks.provider(**settings).release(making.UID)
    assert str(unreleased.value) == str(refused.value), "a release must not take a refusal for an empty list"
    return str(refused.value)


def test_the_steps_service_account_may_ask(aks):
    order(aks.provider())
    login = next(line for line in aks.cloud.requests() if line["host"] == "login.microsoftonline.com")
    assert (login["method"], login["status"]) == ("POST", 200)


@pytest.mark.parametrize(
    ("claims", "words"),
    [
        pytest.param(
            {"sub": "system:serviceaccount:other:kaito-hera-steps"},
            ["AADSTS700213", FEDERATED, "subject system:serviceaccount:other:kaito-hera-steps"],
            id="subject",
        ),
        pytest.param({"aud": ["https://a"]}, ["AADSTS700212", FEDERATED, "audience ['https://a']"], id="audience"),
        pytest.param({"iss": "https://b"}, ["AADSTS700211", "federated credential with issuer https://b"], id="issuer"),
    ],
)
def test_a_token_that_entra_does_not_know_is_shown_beside_what_is_to_be_configured(aks, claims, words):
    aks.log_in(aks.cluster.token(**claims))
    said = refusal(aks)
    for word in words:
        assert word in said
    assert "Trace ID" not in said, "a message that changes each time is a write each time"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        pytest.param({"tenant_id": "another"}, ["AADSTS90002", "tenantId another"], id="tenant"),
        pytest.param({"client_id": "another"}, ["AADSTS700016", "clientId another"], id="client"),
        pytest.param({"client_id": ""}, ["setting azure", "client_id"], id="no-client"),
        pytest.param({"cluster_name": "another"}, ["setting azure: no AKS cluster another"], id="cluster"),
        pytest.param({"resource_group": "another"}, ["setting azure", "resource group another"], id="group"),
        pytest.param({"subscription_id": "another"}, ["setting azure", "subscription another"], id="subscription"),
    ],
)
def test_a_setting_that_leads_nowhere_is_named(aks, settings, words):
    said = refusal(aks, **settings)
    for word in words:
        assert word in said


def test_no_token_at_all_is_told_with_its_place(aks, tmp_path):
    aks.log_in(None)
    assert f"setting azure: no login is possible: [Errno 2] No such file or directory: '{tmp_path}/token'" in refusal(
        aks
    )


@pytest.mark.parametrize(
    ("token", "told"), [("no.json.here", "AADSTS50013"), ("", "issuer None"), ("é.é", "issuer None")]
)
def test_what_is_no_token_is_refused_without_a_crash(aks, token, told):
    aks.log_in(token)
    assert told in refusal(aks)


def test_a_missing_right_is_named_with_who_needs_it(aks):
    action = "Microsoft.ContainerService/managedClusters/agentPools/write"
    message = f"The client 'x' does not have authorization to perform action '{action}' over scope '/subscriptions/y'."
    aks.cloud.scenario("denied", answer={"status": 403, "code": "AuthorizationFailed", "message": message})
    with pytest.raises(
        errors.ProvisioningFailedError, match=f"{action}.*give identity clientId {ACCOUNT.client} a role"
    ):
        order(aks.provider())


def test_a_policy_that_says_no_is_no_missing_right(aks):
    answer = {"status": 403, "code": "RequestDisallowedByPolicy", "message": "only in westeurope"}
    aks.cloud.scenario("denied", answer=answer)
    with pytest.raises(errors.ProvisioningFailedError, match=r"403: .*only in westeurope$"):
        order(aks.provider())


def test_another_cloud_has_another_login_and_another_api(aks):
    said = refusal(aks, cloud="AzureUSGovernment")
    assert {line["host"] for line in aks.cloud.requests()} == {"login.microsoftonline.us"}
    assert "management.core.usgovcloudapi.net" in said, "what the token is asked for; this Entra knows the public one"
