"""Both API versions carry the same fields, and a change of the user's is judged by what was there before."""

import copy
import dataclasses

import pytest

from kaito_hera import cluster as clusters
from kaito_hera import crd
from tests import making

VOLUME = {"persistentVolumeClaim": {"claimName": "data", "readOnly": True}}
PRESET = {
    "name": "phi-3-mini-4k-instruct",
    "accessMode": "private",
    "presetOptions": {"image": "team.azurecr.io/phi:1", "imagePullSecrets": ["pull"], "modelAccessSecret": "hf"},
}
WHOLE = {
    "resource": {
        "count": 1,
        "instanceTypes": ["Standard_NC24ads_A100_v4", "Standard_NC40ads_H100_v5"],
        "capacity": ["spot", "on-demand"],
        "labelSelector": {
            "matchLabels": {"app": "phi"},
            "matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}],
        },
        "preferredNodes": ["n"],
        "partition": {"mode": "mig", "profile": "1g.10gb"},
        "provisioningTimeoutSeconds": 600,
    },
    "inference": {
        "preset": PRESET,
        "config": "serving-params",
        "adapters": [
            {"source": {"name": "a", "image": "b:1", "imagePullSecrets": ["pull"]}, "strength": "0.5"},
            {"source": {"name": "c", "volumeSource": VOLUME}, "strength": "1.0"},
        ],
        "progressDeadlineSeconds": 600,
    },
    "tuning": {
        "preset": PRESET,
        "method": "QLoRA",
        "config": "params",
        "input": {"name": "data", "volumeSource": VOLUME},
        "output": {"volumeSource": {"nfs": {"server": "nfs", "path": "/out", "unheardOf": None}}},
        "checkpoint": {"intervalSeconds": 60, "destination": "Output"},
        "serve": True,
        "activeDeadlineSeconds": 600,
    },
}
TEMPLATE = {
    "metadata": {"labels": {"a": "b"}},
    "spec": {"containers": [{"name": "c", "image": "i", "novel": {"x": 1}}]},
}


@pytest.mark.parametrize(("wrote", "reads"), [("v1alpha1", "v1beta1"), ("v1beta1", "v1alpha1")])
@pytest.mark.parametrize(
    "workspace",
    [WHOLE, {"resource": {"count": 1, "labelSelector": {}}, "inference": {"template": TEMPLATE}}],
    ids=["whole", "template"],
)
def test_nothing_is_lost_between_the_versions(cluster, namespace, workspace, wrote, reads):
    first, second = (dataclasses.replace(clusters.WORKSPACE, version=version) for version in (wrote, reads))
    kind = {"apiVersion": first.api_version, "kind": first.name}
    cluster.create(first, {**workspace, **kind, "metadata": {"name": "w", "namespace": namespace}})
    cluster.replace(second, cluster.get(second, "w", namespace))
    again = cluster.get(first, "w", namespace)
    assert {part: again[part] for part in workspace} == workspace


def test_every_field_of_the_schema_is_in_the_whole_workspace():
    """So that a field that is added is in the round trip too."""
    schema = crd.manifest()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    for part in ("resource", "inference", "tuning"):
        missing = set(schema[part]["properties"]) - set(WHOLE[part])
        assert missing <= {"instanceType", "template"}, f"{part}: {missing}"


@pytest.fixture
def edit(cluster, apply, namespace):
    """Applies a Workspace and then a merge patch to it."""

    def change(workspace, patch):
        apply(workspace)
        return cluster.patch(clusters.WORKSPACE, "w", namespace, patch)

    return change


def test_serving_can_be_added_to_tuning(edit):
    stored = edit(making.tuning(), {"inference": {"preset": {"name": "phi-3-mini-4k-instruct"}}})
    assert stored["inference"]["preset"]["name"] == "phi-3-mini-4k-instruct"


@pytest.mark.parametrize(
    ("workspace", "patch", "words"),
    [
        (
            making.tuning(),
            {"tuning": None, "inference": making.inference()["inference"]},
            "cannot be taken out or exch",
        ),
        (making.inference(), {"tuning": making.tuning()["tuning"]}, "cannot be taken out or exchanged"),
        (making.inference(), {"inference": {"preset": {"name": "phi-4"}}}, "preset.name cannot be changed"),
        (
            making.inference(),
            {"inference": {"preset": None, "template": TEMPLATE}},
            "cannot be changed, nor preset and",
        ),
        (making.tuning(), {"tuning": {"preset": {"name": "phi-4"}}}, "preset.name cannot be changed"),
        (making.tuning(), {"tuning": {"method": "lora"}}, "method cannot be changed"),
        (
            making.inference(),
            {"resource": {"partition": {"mode": "mig", "profile": "1g.5gb"}}},
            "partition cannot be ch",
        ),
    ],
)
def test_what_a_workspace_is_for_stays(edit, workspace, patch, words):
    with pytest.raises(clusters.InvalidObjectError, match=words):
        edit(workspace, patch)


@pytest.mark.parametrize(
    ("workspace", "patch"),
    [
        (making.tuning(), {"tuning": {"method": "QLORA"}}),
        (making.tuning(), {"tuning": {"input": {"urls": ["https://example.com/other.parquet"]}}}),
        (making.tuning(), {"tuning": {"output": {"image": "team.azurecr.io/adapter:2"}}}),
        (making.tuning(), {"tuning": {"config": "other"}}),
        (making.inference(), {"inference": {"config": "other"}}),
        (making.inference(), {"inference": {"preset": {"presetOptions": {"modelAccessSecret": "hf"}}}}),
        (making.inference(), {"resource": {"count": 3}}),
    ],
)
def test_everything_else_may_change(edit, workspace, patch):
    edit(copy.deepcopy(workspace), patch)
