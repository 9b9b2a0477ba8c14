"""Sizes that do not fit are left out while another is left, and a part of a GPU must be one that can be had."""

import pytest

from kaito_hera import checks, errors, loads, nodes
from kaito_hera.settings import Settings
from presets import memory
from tests import making
from tests.kaito_hera.nodes.conftest import AZURE

SMALL, OLD, LARGE = "Standard_NC4as_T4_v3", "Standard_NC6s_v3", "Standard_NC24ads_A100_v4"
AKS = Settings(node_provider="aks", azure=AZURE)


def demand(gib, **more):
    return loads.Demand("serve", "what it takes", memory.Need({"weights": gib}), **more)


def asking(*, sizes=(), capacity=(), partition=None, annotations=None):
    workspace = making.inference(annotations=annotations or {})
    del workspace["resource"]["instanceType"]
    workspace["resource"] |= {"instanceTypes": list(sizes), "capacity": list(capacity)}
    if partition:
        workspace["resource"]["partition"] = partition
    return making.parsed(workspace)


def checked(workspace, gib, settings=AKS):
    return checks.pass_memory(workspace, settings, (demand(gib),))


def test_a_size_that_is_too_small_is_left_out_with_every_kind_of_capacity():
    workspace = asking(sizes=[SMALL, LARGE], capacity=["spot", "on-demand"])
    warnings, out = checked(workspace, 20)
    assert [refusal.candidate for refusal in out] == [f"{SMALL}/spot", f"{SMALL}/on-demand"]
    assert all("resource.instanceTypes[0]: Standard_NC4as_T4_v3 has 16 GiB per GPU" in r.reason for r in out)
    assert [text for text in warnings if "instanceTypes[0]" in text]


def test_a_size_without_the_number_type_that_is_asked_for_is_left_out_or_refused():
    asked = (demand(1, bfloat16="inference.config asks for it"),)
    _, out = checks.pass_memory(asking(sizes=[SMALL, LARGE]), AKS, asked)
    assert [refusal.candidate for refusal in out] == [f"{SMALL}/on-demand"]
    assert "does not compute bfloat16" in out[0].reason
    with pytest.raises(
        errors.UnsupportedGPUError, match=r"instanceTypes\[0\].*bfloat16; inference\.config asks.*write auto"
    ):
        checks.pass_memory(asking(sizes=[SMALL]), AKS, asked)


def test_where_every_size_is_too_small_it_is_an_error():
    with pytest.raises(errors.InsufficientGPUMemoryError, match=r"resource\.instanceTypes\[0\]"):
        checked(asking(sizes=[SMALL, LARGE]), 200)


def test_where_each_size_fails_for_another_reason_it_is_an_error_too():
    workspace = asking(sizes=[OLD, SMALL])
    checks.pass_facts(workspace, AKS)
    with pytest.raises(errors.UnsupportedGPUError, match=r"instanceTypes\[0\].*capability 7.0"):
        checked(workspace, 20)
    assert checked(workspace, 1)[1][0].candidate == f"{OLD}/on-demand"


def test_of_one_size_nothing_is_left_out():
    assert checked(making.parsed(making.inference()), 20)[1] == ()


def test_a_name_that_nobody_knows_is_a_slip_and_stays_an_error():
    with pytest.raises(errors.UnknownInstanceTypeError, match=r"instanceTypes\[1\].*Standard_NC24ads_A100_v5"):
        checks.pass_facts(asking(sizes=[LARGE, "Standard_NC24ads_A100_v5"]), AKS)


SLICE, TWO = {"mode": "mig", "profile": "1g.10gb"}, {"mode": "accelerator", "count": 2}


@pytest.mark.parametrize("partition", [SLICE, TWO])
def test_a_part_of_a_gpu_can_be_had_on_brought_nodes_only(partition):
    with pytest.raises(errors.InvalidWorkspaceError, match=r"resource\.partition: .*nodeProvider: byo"):
        checked(asking(sizes=[LARGE], partition=partition), 1)


@pytest.mark.parametrize("sizes", [[], [LARGE]], ids=["any-size", "a-named-size"])
def test_the_model_must_fit_the_slice_not_the_card(sizes):
    workspace = asking(sizes=sizes, partition=SLICE)
    checked(workspace, 8, Settings())
    with pytest.raises(errors.InsufficientGPUMemoryError, match="10 GiB"):
        checked(workspace, 20, Settings())


@pytest.mark.parametrize(
    ("size", "profile"), [("Standard_NC24ads_A100_v4", "9g.999gb"), ("Standard_NC4as_T4_v3", "1g.10gb")]
)
def test_a_slice_that_no_such_card_is_cut_into_is_refused(size, profile):
    workspace = asking(sizes=[size], partition={"mode": "mig", "profile": profile})
    with pytest.raises(errors.InvalidWorkspaceError, match=rf"resource\.partition\.profile: {size}.*{profile}"):
        checked(workspace, 8, Settings())


def test_what_a_slice_does_not_hold_at_once_is_said():
    asked = demand(20, fewer=(loads.Way("half of it", memory.Need({"weights": 8.0})),))
    [warning], out = checks.pass_memory(asking(partition=SLICE), Settings(), (asked,))
    assert warning.startswith("resource.partition.profile: a slice 1g.10gb has 10 GiB; to serve ")
    assert "(what it takes) needs 22.0 GiB; so less is computed at once (half of it: 8.8 GiB)" in warning
    assert out == ()


def test_a_node_has_as_many_gpus_as_are_asked_for():
    with pytest.raises(errors.InvalidWorkspaceError, match=r"partition\.count: 2 GPUs.*has 1; ask for at most 1"):
        checked(asking(sizes=[LARGE], partition=TWO), 1, Settings())


@pytest.mark.parametrize(
    ("partition", "limits"),
    [
        (SLICE, {"nvidia.com/mig-1g.10gb": "1"}),
        (TWO, {"nvidia.com/gpu": "2"}),
        (None, {"nvidia.com/gpu": "1"}),
    ],
)
def test_pods_ask_for_what_the_partition_says(partition, limits):
    from kaito_hera.nodes.byo import ByoProvider

    placement = ByoProvider(None).placement(nodes.wanted(asking(partition=partition)), ("n",))
    assert placement.limits == limits
    tolerated = {each["key"] for each in placement.pod_fields()["tolerations"]}
    assert tolerated == {"sku", "kubernetes.azure.com/scalesetpriority", "nvidia.com/gpu", *limits}


def test_the_operating_system_of_brought_nodes_is_not_ours_to_choose():
    workspace = asking(annotations={"kaito.sh/node-image-family": "azurelinux"})
    [warning] = checked(workspace, 1, Settings())[0]
    assert "node-image-family" in warning
    assert "no effect on nodes you bring" in warning
    assert checked(asking(sizes=[LARGE], annotations={"kaito.sh/node-image-family": "ubuntu"}), 1)[0] == ()
