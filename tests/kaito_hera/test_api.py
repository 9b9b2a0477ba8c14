"""What a manifest may say, without an API server."""

import pydantic
import pytest

from kaito_hera.api import Workspace
from tests import making


def test_two_adapters_of_a_name_are_refused_and_named():
    workspace = making.inference()
    workspace["inference"]["adapters"] = [{"source": {"name": name, "image": "b"}} for name in "aba"]
    with pytest.raises(pydantic.ValidationError, match="'a' is there twice"):
        Workspace.parse(workspace)


@pytest.mark.parametrize("name", ["../../victim/secrets/x", "..", "a/b", "", "{{workflow.name}}"])
def test_a_path_is_not_the_name_of_a_secret(name):
    workspace = making.tuning()
    workspace["tuning"]["output"]["imagePushSecret"] = name
    with pytest.raises(pydantic.ValidationError, match="imagePushSecret"):
        Workspace.parse(workspace)


@pytest.mark.parametrize("long", ["x" * 50_000, '"' * 15_000], ids=["plain", "quotes"])
def test_a_template_that_no_step_could_be_given_is_refused(long):
    template = {"spec": {"containers": [{"name": "c", "image": "i", "args": [long]}]}}
    with pytest.raises(pydantic.ValidationError, match="the pod template is too large"):
        making.parsed({**making.inference(), "inference": {"template": template}})
    template["spec"]["containers"][0]["args"] = [long[: len(long) // 2]]
    assert making.parsed({**making.inference(), "inference": {"template": template}}).inference.template == template


def test_a_volume_is_not_larger_than_what_a_workflow_carries():
    workspace = making.tuning()
    workspace["tuning"]["input"] = {"volumeSource": {"csi": {"driver": "d", "volumeAttributes": {"x": "y" * 9000}}}}
    with pytest.raises(
        pydantic.ValidationError, match=r"too large, 9,\d+ bytes of 8,192: name an object that holds it"
    ):
        Workspace.parse(workspace)
