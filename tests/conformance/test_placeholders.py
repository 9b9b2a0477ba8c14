"""What is put in place of placeholders."""

import pytest
import yaml

from tests.conformance import placeholders


@pytest.mark.parametrize(
    ("published", "meant"),
    [
        ("resource: {instanceType: <your-vm-sku>}", {"resource": {"instanceType": "Standard_NC24ads_A100_v4"}}),
        ("resource: {instanceType: '${GPU_NODE_SIZE}'}", {"resource": {"instanceType": "Standard_NC24ads_A100_v4"}}),
        ("preferredNodes: [<your-node>]", {"preferredNodes": ["your-node"]}),
        ("preset: {name: {PresetName}}", {"preset": {"name": "phi-4-mini-instruct"}}),
        ("metadata: {name: {YourDeploymentName}}", {"metadata": {"name": "yourdeploymentname"}}),
        ("image: <YOUR IMAGE URL>", {"image": "team.example.com/image:1"}),
        ("image: <YOUR_ACR>.azurecr.io/adapter:1", {"image": "your-acr.azurecr.io/adapter:1"}),
        ("image: REPO_HERE.azurecr.io/NAME_HERE:1", {"image": "repo-here.azurecr.io/name-here:1"}),
        ("image: PUSHREGISTRY/NAME_HERE:1", {"image": "pushregistry/name-here:1"}),
        ("imagePushSecret: SECRET_HERE", {"imagePushSecret": "secret-here"}),
    ],
)
def test_placeholders_are_replaced_by_what_the_field_asks_for(published, meant):
    assert placeholders.filled(yaml.safe_load(published)) == meant


@pytest.mark.parametrize(
    "published",
    [
        {"instanceType": "Standard_NC24ads_A100_v4", "count": 2},
        {"emptyDir": {"medium": "Memory"}, "args": ["--a", "1"], "none": None},
        {"name": "microsoft/Phi-4-mini-instruct", "image": "team.azurecr.io/a:1"},
    ],
)
def test_all_else_stays(published):
    assert placeholders.filled(published) == published
