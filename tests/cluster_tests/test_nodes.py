import json

import pytest

from tests.cluster import layout, nodes


def test_taint_is_read():
    assert nodes.parse_taint("sku=gpu:NoSchedule") == {"key": "sku", "value": "gpu", "effect": "NoSchedule"}
    assert nodes.parse_taint("spare:NoExecute") == {"key": "spare", "value": "", "effect": "NoExecute"}


@pytest.mark.parametrize("text", ["sku=gpu", "sku=gpu:Never", ":NoSchedule"])
def test_other_taints_are_refused(text):
    with pytest.raises(layout.ClusterError, match="key=value:NoSchedule"):
        nodes.parse_taint(text)


def test_instance_type_becomes_a_label():
    spec = nodes.NodeSpec("a", labels={"agentpool": "ws1"}, instance_type="Standard_NC6s_v3")
    assert spec.all_labels() == {"node.kubernetes.io/instance-type": "Standard_NC6s_v3", "agentpool": "ws1"}


def test_slots_are_taken_lowest_first_and_kept(cluster):
    assert [nodes.take_slot(cluster, nodes.NodeSpec(name)) for name in ("a", "b", "a", "c")] == [0, 1, 0, 2]
    layout.remove(cluster.nodes / "b")
    assert nodes.take_slot(cluster, nodes.NodeSpec("d")) == 1
    assert nodes.names(cluster) == ["a", "c", "d"]


def test_spec_survives_on_disk(cluster):
    spec = nodes.NodeSpec("a", {"x": "y"}, ["sku=gpu:NoSchedule"], "Standard_NC6s_v3", 1, "azure:///x")
    slot = nodes.take_slot(cluster, spec)
    assert nodes.read(cluster, "a") == (spec, slot)


def test_full_cluster_says_so(cluster):
    for number in range(layout.SLOTS):
        nodes.take_slot(cluster, nodes.NodeSpec(f"n{number}"))
    with pytest.raises(layout.ClusterError, match=f"{layout.SLOTS} are the limit"):
        nodes.take_slot(cluster, nodes.NodeSpec("one-more"))


def test_kubelet_settings_hold_the_taints(cluster):
    spec = nodes.NodeSpec("a", taints=["sku=gpu:NoSchedule"])
    settings = nodes.kubelet_settings(cluster, spec, "10.240.0.101", "/kaito-hera-demo/a")
    assert json.loads(json.dumps(settings))["registerWithTaints"][0]["key"] == "sku"
    assert settings["cgroupRoot"] == "/kaito-hera-demo/a"
