"""What a manifest may say, without an API server."""

import re

import pydantic
import pytest

from kaito_hera import names, watched
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


IMAGE = making.tuning()["tuning"]["output"]
VOLUME = {"volumeSource": {"persistentVolumeClaim": {"claimName": "out"}}}


@pytest.mark.parametrize(
    ("output", "checkpoint", "seconds"),
    [
        (VOLUME, None, 300),
        (VOLUME, {}, 300),
        (VOLUME, {"destination": "Output"}, 300),
        (VOLUME, {"intervalSeconds": 60}, 60),
        (VOLUME, {"destination": "None"}, 0),
        (IMAGE, None, 300),
        (IMAGE, {}, 300),
        (IMAGE, {"destination": "Output"}, 300),
        (IMAGE, {"intervalSeconds": 60}, 60),
        (IMAGE, {"destination": "None"}, 0),
    ],
)
def test_checkpoints_are_kept_beside_the_adapter(output, checkpoint, seconds):
    workspace = making.tuning()
    workspace["tuning"] |= {"output": output, **({} if checkpoint is None else {"checkpoint": checkpoint})}
    assert making.parsed(workspace).tuning.checkpoint_seconds == seconds


@pytest.mark.parametrize(
    ("output", "checkpoint", "says"),
    [
        (IMAGE, {"intervalSeconds": 60, "destination": "None"}, "says nothing where destination is None"),
        (VOLUME, {"intervalSeconds": 60, "destination": "None"}, "says nothing where destination is None"),
        (VOLUME, {"intervalSeconds": 9}, "greater than or equal to 10"),
        (VOLUME, {"destination": "Input"}, "'Output' or 'None'"),
    ],
)
def test_what_checkpoints_cannot_be(output, checkpoint, says):
    workspace = making.tuning()
    workspace["tuning"] |= {"output": output, "checkpoint": checkpoint}
    with pytest.raises(pydantic.ValidationError, match=says):
        making.parsed(workspace)


@pytest.mark.parametrize("name", ["7b.x-Chat", "7b-chat", "old.phi", "x" * 200 + ".y"])
def test_a_name_that_only_kaito_allowed_is_refused_anew_and_left_in_peace_where_it_is(name):
    stored = making.inference(name=name)
    assert making.parsed(stored).broken(as_new=True)
    anew = making.inference(name=name)
    del anew["metadata"]["uid"]
    with pytest.raises(pydantic.ValidationError, match=r"metadata\.name"):
        Workspace.parse(anew)
    identity = making.parsed(stored).identity()
    assert Workspace.parse(identity.intent()).key == f"team/{name}"


@pytest.mark.parametrize("name", ["7b.x-chat", "7b-chat", "a." * 31 + "a", "x" * 200 + ".y"])
def test_what_is_made_for_such_a_name_has_names_and_labels_that_kubernetes_takes(name):
    workspace = making.parsed(making.inference(name=name))
    made = [names.workflow(workspace, 1), names.release_job(workspace), names.job(workspace, 1)]
    assert all(re.fullmatch("[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", each) for each in made), made
    labels = names.labels(workspace).values()
    assert all(re.fullmatch("[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?", each) for each in labels), labels
    flow = making.workflow(making.inference(name=name), kind="release")
    key = watched.workflows("kaito-hera").key(flow)
    assert key == watched.WORKSPACES.key(making.inference(name=name)), "or nobody sees the release end"
