import dataclasses

import pytest

from kaito_hera import cluster as clusters
from kaito_hera import errors, names, nodes
from kaito_hera.nodes.byo import ByoProvider
from tests import making
from tests.kaito_hera.nodes.conftest import order

ONE_GPU = "Standard_NC24ads_A100_v4"
FOUR_GPUS = "Standard_NC96ads_A100_v4"


class Cluster:
    """Nodes and pods, listed as the API server lists them."""

    def __init__(self, found, pods=()):
        self._objects = {clusters.NODE: found, clusters.POD: list(pods)}

    def items(self, kind, namespace=None, *, labels=""):
        wanted = dict(pair.split("=") for pair in labels.split(",") if pair)
        return [obj for obj in self._objects[kind] if wanted.items() <= obj["metadata"].get("labels", {}).items()]


def gpu_node(name, *, gpus=1, cordoned=False, labels=None, **more):
    found = making.node(name=name, gpus=gpus, labels={"app": "phi", **(labels or {})}, **more)
    found["spec"] = {"unschedulable": True} if cordoned else {}
    return found


def gpu_pod(node, *, gpus=1, phase="Running", uid="somebody"):
    limits = {"nvidia.com/gpu": str(gpus)} if gpus else {"memory": "1Gi"}
    return {
        "metadata": {"name": f"p-{node}", "labels": {names.UID: uid}},
        "spec": {"nodeName": node, "containers": [{"name": "c", "resources": {"limits": limits}}, {"name": "side"}]},
        "status": {"phase": phase},
    }


def want(*, count=1, size=ONE_GPU, preferred=(), labels=None):
    workspace = making.edited(making.inference(), instanceType=size, count=count)
    workspace["resource"]["preferredNodes"] = list(preferred)
    if labels is not None:
        workspace["resource"]["labelSelector"] = {"matchLabels": labels}
    return nodes.wanted(making.parsed(workspace))


def ordered(wanted, found, pods=()):
    return list(order(ByoProvider(Cluster(found, pods)), wanted).hostnames)


def refusal(wanted, found, pods=()):
    with pytest.raises(errors.NoNodesMatchError) as refused:
        ordered(wanted, found, pods)
    return str(refused.value)


def test_nodes_with_most_free_gpus_come_first():
    found = [gpu_node(name, gpus=gpus, size=FOUR_GPUS) for name, gpus in (("a", 4), ("d", 8), ("c", 8), ("b", 8))]
    [first] = ordered(want(size=FOUR_GPUS), found)
    assert first in {"b", "c", "d"}
    assert ordered(want(size=FOUR_GPUS), found[::-1]) == [first]
    assert ordered(want(size=FOUR_GPUS, count=3), found) == ["b", "c", "d"]


def test_workspaces_that_come_together_begin_at_different_nodes():
    found = [gpu_node(f"gpu-{number}") for number in range(8)]
    taken = {tuple(ordered(dataclasses.replace(want(), uid=f"uid-{number}"), found)) for number in range(20)}
    assert len(taken) > 4


@pytest.mark.parametrize(
    ("taint", "told"),
    [
        ({"key": "dedicated", "value": "other-team", "effect": "NoSchedule"}, "dedicated=other-team:NoSchedule"),
        ({"key": "drained", "effect": "NoExecute"}, "drained:NoExecute"),
        ({"key": "sku", "value": "cpu", "effect": "NoSchedule"}, "sku=cpu:NoSchedule"),
        ({"key": "sku", "value": "gpu", "effect": "NoSchedule"}, ""),
        ({"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}, ""),
        ({"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}, ""),
        ({"key": "dedicated", "value": "other-team", "effect": "PreferNoSchedule"}, ""),
    ],
)
def test_a_node_whose_taint_keeps_its_pods_off_is_passed_over(taint, told):
    tainted = gpu_node("tainted", gpus=8)
    tainted["spec"]["taints"] = [taint]
    assert ordered(want(), [tainted, gpu_node("plain")]) == (["plain"] if told else ["tainted"])
    if told:
        assert f"tainted has the taint {told}, which its pods do not tolerate" in refusal(want(), [tainted])


@pytest.mark.parametrize(
    ("toleration", "borne"),
    [
        ({"key": "dedicated", "operator": "Equal", "value": "other-team", "effect": "NoSchedule"}, True),
        ({"key": "dedicated", "operator": "Exists"}, True),
        ({"operator": "Exists"}, True),
        ({"key": "dedicated", "value": "mine"}, False),
        ({"key": "dedicated", "operator": "Exists", "effect": "NoExecute"}, False),
    ],
)
def test_what_the_user_s_own_pod_tolerates_counts_too(toleration, borne):
    workspace = making.edited(making.inference(), instanceType=ONE_GPU)
    spec = {"tolerations": [toleration], "containers": [{"name": "c", "image": "i"}]}
    workspace["inference"] = {"template": {"spec": spec}}
    tainted = gpu_node("tainted")
    tainted["spec"]["taints"] = [{"key": "dedicated", "value": "other-team", "effect": "NoSchedule"}]
    wanted = dataclasses.replace(nodes.wanted(making.parsed(workspace)), labels={})
    assert ordered(wanted, [tainted, gpu_node("plain", gpus=1)][:1] if borne else [tainted, gpu_node("plain")]) == (
        ["tainted"] if borne else ["plain"]
    )


def test_preferred_nodes_come_before_freer_ones():
    found = [gpu_node("free", gpus=8), gpu_node("asked", gpus=1)]
    assert ordered(want(preferred=["asked"]), found) == ["asked"]
    assert ordered(want(preferred=["asked", "not-there"]), found) == ["asked"]


def test_a_preferred_node_that_is_no_good_is_passed_over():
    found = [gpu_node("free"), gpu_node("asked", cordoned=True)]
    assert ordered(want(preferred=["asked"]), found) == ["free"]


def test_only_nodes_with_the_labels_count():
    found = [gpu_node("other", labels={"app": "llama"}), gpu_node("mine")]
    assert ordered(want(), found) == ["mine"]
    assert ordered(want(count=2, labels={}), found) == ["mine", "other"]


@pytest.mark.parametrize(
    ("pod", "free"),
    [
        pytest.param(gpu_pod("node"), False, id="running"),
        pytest.param(gpu_pod("node", phase="Pending"), False, id="bound-and-pending"),
        pytest.param(gpu_pod("node", phase="Succeeded"), True, id="succeeded"),
        pytest.param(gpu_pod("node", phase="Failed"), True, id="failed"),
        pytest.param(gpu_pod("node", gpus=0), True, id="without-gpu"),
        pytest.param(gpu_pod("elsewhere"), True, id="on-another-node"),
        pytest.param(gpu_pod("node", uid=making.UID), True, id="own"),
    ],
)
def test_a_gpu_is_free_unless_a_pod_of_somebody_else_runs_with_it(pod, free):
    if free:
        assert ordered(want(), [gpu_node("node")], [pod]) == ["node"]
    else:
        assert "node has 0 free GPUs, 1 are needed" in refusal(want(), [gpu_node("node")], [pod])


def test_gpus_of_all_pods_and_containers_add_up():
    pods = [gpu_pod("node", gpus=2), gpu_pod("node", gpus=3)]
    assert "node has 3 free GPUs, 4 are needed" in refusal(
        want(size=FOUR_GPUS), [gpu_node("node", gpus=8, size="")], pods
    )


def test_a_workspace_that_grows_keeps_the_node_it_has():
    found = [gpu_node(name) for name in ("a", "b", "z")]
    own = gpu_pod("z", uid=making.UID)
    assert ordered(want(count=2), found, [own]) == ["a", "z"]


def test_where_its_steps_run_says_nothing_about_where_its_server_does():
    found = [gpu_node(name) for name in ("a", "b", "z")]
    own = [gpu_pod("b", gpus=0, uid=making.UID), gpu_pod("z", uid=making.UID)]
    assert ordered(want(), found, own) == ["z"]


def test_brought_nodes_without_a_named_size_may_be_of_any():
    found = [gpu_node("some", size="my-own-machine")]
    assert ordered(want(size=None), found) == ["some"]
    assert "some is a my-own-machine, not a Standard_NC24ads_A100_v4" in refusal(want(), found)


def test_every_node_that_does_not_fit_is_named_with_its_reason():
    found = [
        gpu_node("good"),
        gpu_node("cordoned", cordoned=True),
        gpu_node("dead", ready=False),
        gpu_node("bare", gpus=0),
        gpu_node("full"),
        gpu_node("going", deletionTimestamp="2026-01-01T00:00:00Z"),
    ]
    said = refusal(want(count=2), found, [gpu_pod("full")])
    assert said.startswith("resource.labelSelector app=phi: 1 of 2 nodes fit: ")
    for words in (
        "cordoned is cordoned",
        "dead is not Ready: KubeletNotReady: cni",
        "bare is Ready but offers 0 of 1 nvidia.com/gpu",
        "full has 0 free GPUs, 1 are needed",
        "going is being deleted",
    ):
        assert words in said
    assert "good" not in said


def test_no_node_at_all_is_told_with_the_labels_that_were_looked_for():
    assert "app=phi: 0 of 1 nodes fit, no node has these labels; label GPU nodes" in refusal(want(), [])
    assert "(empty): 0 of 1 nodes fit" in refusal(want(labels={}), [])


def test_there_is_nothing_to_give_back():
    provider = ByoProvider(Cluster([]))
    assert provider.makes_nodes is False
    assert provider.release(making.UID) is True
    provider.check(want())


def cut_node(name, profile="1g.10gb", slices=7):
    found = gpu_node(name, gpus=0)
    found["status"]["allocatable"] |= {f"nvidia.com/mig-{profile}": str(slices)}
    return found


def test_slices_of_a_gpu_are_counted_by_their_own_name():
    asked = dataclasses.replace(want(size=None), device="nvidia.com/mig-1g.10gb", share=1)
    taken = gpu_pod("full", gpus=0)
    taken["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/mig-1g.10gb"] = "7"
    whole = gpu_pod("cut", gpus=8)
    found = [cut_node("full"), cut_node("cut"), cut_node("other", profile="2g.20gb"), gpu_node("uncut")]
    assert ordered(asked, found, [taken, whole]) == ["cut"]
    said = refusal(dataclasses.replace(asked, count=2), found, [taken, whole])
    assert "full has 0 free nvidia.com/mig-1g.10gb, 1 are needed" in said
    assert "other is Ready but offers 0 of 1 nvidia.com/mig-1g.10gb (is the device plugin running on it and MIG" in said
    assert "uncut is Ready but offers 0 of 1 nvidia.com/mig-1g.10gb" in said


def test_so_many_gpus_of_a_node_need_not_be_all_of_it():
    asked = dataclasses.replace(want(size=FOUR_GPUS), share=2)
    found = [gpu_node("node", gpus=4, size=FOUR_GPUS)]
    assert ordered(asked, found, [gpu_pod("node", gpus=2)]) == ["node"]
    assert "has 1 free GPUs, 2 are needed" in refusal(asked, found, [gpu_pod("node", gpus=3)])


@pytest.mark.parametrize(
    ("labels", "spot"),
    [
        ({"kubernetes.azure.com/scalesetpriority": "spot"}, True),
        ({"karpenter.sh/capacity-type": "spot"}, True),
        ({"eks.amazonaws.com/capacityType": "SPOT"}, True),
        ({"cloud.google.com/gke-spot": "true"}, True),
        ({"karpenter.sh/capacity-type": "on-demand"}, False),
        ({}, False),
    ],
)
def test_which_brought_nodes_are_spot_is_read_from_their_labels(labels, spot):
    found = [gpu_node("node", labels=labels)]
    right, wrong = ("spot", "on-demand") if spot else ("on-demand", "spot")
    assert ordered(dataclasses.replace(want(), capacity=right), found) == ["node"]
    assert ordered(want(), found) == ["node"], "unless the user says so, either will do"
    said = refusal(dataclasses.replace(want(), capacity=wrong), found)
    assert ("node is spot, not on-demand" if spot else "node is not spot: it has none of the labels") in said
