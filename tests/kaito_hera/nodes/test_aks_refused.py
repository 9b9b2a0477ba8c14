"""What Azure never takes is the Workspace's fault, and final; what may pass is not."""

import dataclasses

import pytest

from kaito_hera import errors
from tests import making
from tests.kaito_hera.nodes.conftest import WANT, order

INVALID = {"status": 400, "code": "InvalidParameter"}


@pytest.mark.parametrize(
    "labels", [{"app": "hello world"}, {"kubernetes.io/hostname": "mine"}], ids=["value", "reserved"]
)
def test_a_label_that_azure_never_takes_is_told_with_its_field_and_not_tried_again(aks, labels):
    with pytest.raises(errors.InvalidWorkspaceError) as refused:
        order(aks.provider(), dataclasses.replace(WANT, labels=labels))
    assert refused.value.retryable is False
    said = str(refused.value)
    assert said.startswith("resource.labelSelector: Azure takes no such nodes: InvalidParameter: ")
    assert next(iter(labels)) in said
    assert "delete the Workspace and apply it anew" in said


@pytest.mark.parametrize(
    ("message", "field"),
    [("agentPoolProfile.vmSize X is unknown", "resource.instanceType"), ("tags: too many", "resource")],
)
def test_a_parameter_that_azure_never_takes_is_told_with_its_field(aks, message, field):
    aks.cloud.scenario("never", answer={**INVALID, "message": message})
    with pytest.raises(errors.InvalidWorkspaceError, match=f"^{field}: .*{message}"):
        order(aks.provider())


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param({**INVALID, "message": "vmSize X: Quota exceeded"}, id="quota"),
        pytest.param({**INVALID, "message": "no capacity, try again later"}, id="capacity"),
        pytest.param({**INVALID, "code": "BadRequest", "message": "no"}, id="another-code"),
        pytest.param({**INVALID, "status": 409, "message": "no"}, id="another-status"),
    ],
)
def test_what_may_pass_is_tried_again(aks, answer):
    aks.cloud.scenario("passing", answer=answer)
    with pytest.raises(errors.ProvisioningFailedError, match=answer["message"]):
        order(aks.provider())


def test_a_release_that_azure_calls_invalid_is_tried_again(aks):
    order(aks.provider())
    aks.cloud.scenario("never", method="DELETE", answer={**INVALID, "message": "no"})
    with pytest.raises(errors.ProvisioningFailedError, match="400: InvalidParameter: no"):
        aks.provider().release(making.UID)
