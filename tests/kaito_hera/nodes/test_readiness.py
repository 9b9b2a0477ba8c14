import pytest

from kaito_hera import nodes
from kaito_hera.nodes.readiness import Calm
from tests import making

WANT = nodes.wanted(making.parsed(making.inference()))


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        pytest.param(making.node(), "", id="usable"),
        pytest.param(making.node(ready=False), "is not Ready: KubeletNotReady: cni", id="not-ready"),
        pytest.param(making.node(gpus=0), "is Ready but offers 0 of 1 nvidia.com/gpu", id="no-device-plugin"),
        pytest.param(making.node(size="Standard_D2s_v3"), "is a Standard_D2s_v3", id="another-size"),
        pytest.param(making.node(size="standard_nc24ADS_a100_v4"), "", id="case-does-not-matter"),
        pytest.param(making.node(deletionTimestamp="2026-01-01T00:00:00Z"), "is being deleted", id="going"),
    ],
)
def test_a_node_that_cannot_be_worked_on_says_why(node, expected):
    reason = nodes.unusable(node, WANT)
    assert reason.startswith(expected) if expected else reason == ""


def test_nodes_must_stay_usable_for_a_while():
    calm = Calm(WANT, steady=10)
    assert calm.see([making.node()], now=100) == []
    assert calm.wait(now=100) == 5
    assert calm.see([making.node()], now=109) == []
    assert calm.wait(now=109) == 1
    assert calm.see([making.node()], now=110) == ["node-1"]


def test_a_node_that_flaps_starts_anew():
    calm = Calm(WANT, steady=10)
    calm.see([making.node()], now=100)
    calm.see([making.node(ready=False)], now=105)
    calm.see([making.node()], now=106)
    assert calm.see([making.node()], now=112) == []
    assert calm.see([making.node()], now=116) == ["node-1"]


def test_a_node_made_again_under_its_name_starts_anew():
    calm = Calm(WANT, steady=10)
    calm.see([making.node()], now=100)
    assert calm.see([making.node(uid="another")], now=110) == []


def test_the_story_names_every_node_that_is_not_usable():
    calm = Calm(WANT, steady=10)
    calm.see([making.node(), making.node(name="node-2", gpus=0)], now=0)
    assert calm.story().startswith("1 of 1 Standard_NC24ads_A100_v4 nodes usable: node-2 is Ready but offers 0 of 1")


def test_pods_go_to_the_workspace_s_own_nodes():
    fields = nodes.Placement(labels={"a": "b"}, hostnames=("x", "y")).pod_fields()
    assert fields["nodeSelector"] == {"a": "b"}
    required = fields["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    named = [term["matchFields"][0] for term in required["nodeSelectorTerms"]]
    assert [(field["key"], field["values"]) for field in named] == [("metadata.name", ["x"]), ("metadata.name", ["y"])]
    assert {"key": "sku", "operator": "Equal", "value": "gpu", "effect": "NoSchedule"} in fields["tolerations"]
