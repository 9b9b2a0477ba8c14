"""Several kinds of node would do: which is asked for, what is said of the others, and what goes back."""

import dataclasses
import datetime

import pytest

from kaito_hera import cluster as clusters
from kaito_hera import errors, names, nodes, status
from kaito_hera.nodes import ordering
from kaito_hera.nodes.aks import pool_body, pool_name
from kaito_hera.run import Run
from kaito_hera.settings import Settings
from kaito_hera.status import Refusal
from tests import making
from tests.kaito_hera.nodes.conftest import AZURE, WANT
from tests.simulators import paper
from tests.simulators.azure import A100, V100

QUOTA = {"status": 400, "code": "ErrCode_InsufficientVCPUQuota", "message": "Insufficient vcpu quota requested 24"}


class Cluster:
    """What a step reads of a cluster: its Workspace, nodes, and pods of the Workspace's."""

    def __init__(self, workspace):
        self.workspace, self.nodes, self.pods = workspace, [], []

    def get(self, kind, name, namespace=None):
        assert kind is clusters.WORKSPACE
        return self.workspace

    def items(self, kind, namespace=None, *, labels=""):
        wanted = dict(pair.split("=") for pair in labels.split(","))
        found = {clusters.NODE: self.nodes, clusters.POD: self.pods}[kind]
        return [obj for obj in found if wanted.items() <= obj["metadata"]["labels"].items()]

    def join(self, cloud, name, *, works=False):
        """A machine of the cloud as a Node that is Ready, with a server on it perhaps."""
        self.nodes.append(making.node(name=name, labels=cloud.machines.about(name)["labels"]))
        if works:
            limits = {"resources": {"limits": {nodes.GPU: "1"}}}
            pod = {"metadata": {"labels": {names.UID: making.UID}}, "spec": {"nodeName": name, "containers": [limits]}}
            self.pods.append(pod)


def run_of(aks, *, sizes=(A100, V100), capacity=(), annotations=None, count=1):
    workspace = making.inference(annotations=annotations or {})
    del workspace["resource"]["instanceType"]
    workspace["resource"] |= {"instanceTypes": list(sizes), "capacity": list(capacity), "count": count}
    settings = Settings(node_provider="aks", azure=AZURE)
    return Run(Cluster(workspace), making.parsed(workspace), settings, aks.provider())


def pool(run, candidate):
    return pool_name(next(want for want in run.candidates if want.candidate == candidate))


def held(candidate, reason="0 of 1 nodes usable", hours=1):
    until = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=hours)
    return Refusal(candidate=candidate, reason=reason, held_until=status.rfc3339(until))


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(QUOTA, id="quota"),
        pytest.param({"status": 409, "code": "OperationNotAllowed", "message": "LowPriorityCores quota"}, id="spot"),
        pytest.param({"status": 400, "code": "AKSCapacityError", "message": "none"}, id="capacity"),
        pytest.param({"status": 409, "code": "SkuNotAvailable", "message": "not in eastus"}, id="sku"),
        pytest.param({"status": 403, "code": "RequestDisallowedByPolicy", "message": "too dear"}, id="policy"),
        pytest.param(
            {"status": 400, "code": "InvalidParameter", "message": "agentPoolProfile.vmSize is unknown"}, id="never"
        ),
    ],
)
def test_a_kind_that_azure_refuses_gives_way_at_once(aks, answer):
    aks.cloud.scenario("refused", vmSize=A100, answer=answer)
    run = run_of(aks)
    found = ordering.order(run)
    assert found.order.candidate == f"{V100}/on-demand"
    assert [refusal.candidate for refusal in found.refused] == [f"{A100}/on-demand"]
    assert answer["message"] in found.refused[0].reason
    assert list(aks.pools()) == [pool(run, f"{V100}/on-demand")]


def test_each_size_is_tried_with_each_kind_of_capacity(aks):
    asked = [want.candidate for want in run_of(aks, capacity=("spot", "on-demand")).candidates]
    assert asked == [f"{A100}/spot", f"{A100}/on-demand", f"{V100}/spot", f"{V100}/on-demand"]


def test_when_none_can_be_had_each_is_named_with_its_reason(aks):
    aks.cloud.scenario("a", vmSize=A100, answer=QUOTA)
    aks.cloud.limits(notOffered=[V100])
    with pytest.raises(errors.ProvisioningFailedError) as refused:
        ordering.order(run_of(aks))
    said = str(refused.value)
    assert said.startswith(f"none of 2 kinds of node can be had: {A100}/on-demand: Azure answered 400: ErrCode_")
    assert f"; {V100}/on-demand: Azure answered 400: BadRequest: The VM size of {V100} is not allowed" in said
    assert (refused.value.reason, refused.value.retryable) == ("ProvisioningFailed", True)


def test_what_azure_takes_of_no_kind_is_final(aks):
    never = {"status": 400, "code": "InvalidParameter", "message": "nodeLabels: app=x y is no value"}
    aks.cloud.scenario("never", answer=never)
    with pytest.raises(errors.InvalidWorkspaceError, match=r"none of 2 kinds.*resource\.labelSelector"):
        ordering.order(run_of(aks))


@pytest.mark.parametrize(
    "answer",
    [
        {"status": 403, "code": "AuthorizationFailed", "message": "no right to write agentPools, quota or not"},
        {"status": 500, "code": "InternalServerError", "message": "capacity of ours"},
    ],
)
def test_what_is_not_about_the_kind_ends_the_attempt(aks, answer):
    aks.cloud.scenario("refused", vmSize=A100, answer=answer)
    with pytest.raises(errors.ProvisioningFailedError, match=answer["code"]):
        ordering.order(run_of(aks))
    assert aks.pools() == {}


def test_a_kind_that_fails_later_gives_way_in_the_next_attempt(aks):
    aks.cloud.limits(capacity={A100: 1})
    run = run_of(aks, count=2)
    first = ordering.order(run).order.candidate
    aks.cloud.until(pool(run, first), "Failed")
    assert aks.cloud.machines.on(), "it holds machines"
    found = ordering.order(run, known=(held(first, "AllocationFailed"),))
    assert found.order.candidate == f"{V100}/on-demand"
    assert [(r.candidate, r.reason) for r in found.refused] == [(first, "AllocationFailed")]
    paper.until(lambda: list(aks.pools()) == [pool(run, f"{V100}/on-demand")], "the failed pool to go")


def test_machines_that_never_join_give_way_too_and_every_kind_gets_its_turn(aks):
    run = run_of(aks, capacity=("spot", "on-demand"))
    known = ()
    for turn in range(5):
        found = ordering.order(run, known=known)
        assert found.order.candidate == run.candidates[turn % 4].candidate
        aks.cloud.until(pool(run, found.order.candidate), "Succeeded")
        known = (*(r for r in found.refused if r.candidate != found.order.candidate), held(found.order.candidate))
    assert len(aks.pools()) <= 2, "one, and the one before it on its way"


def test_an_hour_later_the_users_order_counts_again(aks):
    run = run_of(aks)
    found = ordering.order(run, known=(held(f"{A100}/on-demand", hours=-1),))
    assert (found.order.candidate, found.refused) == (f"{A100}/on-demand", ())


def test_a_kind_that_was_launched_stays_though_a_better_one_could_be_had_by_now(aks):
    aks.cloud.scenario("once", times=1, vmSize=A100, answer=QUOTA)
    run = run_of(aks)
    for _ in range(2):
        assert ordering.order(run).order.candidate == f"{V100}/on-demand"
    assert len(aks.pools()) == 1


def test_a_kind_on_which_the_server_runs_stays_whatever_is_said_of_it(aks):
    run = run_of(aks)
    candidate = ordering.order(run).order.candidate
    aks.cloud.until(pool(run, candidate), "Succeeded")
    run.cluster.join(aks.cloud, aks.cloud.machines.on()[0], works=True)
    found = ordering.order(run, known=(held(candidate),))
    assert found.order.candidate == candidate
    assert len(aks.pools()) == 1


def unfit(candidate):
    return Refusal(candidate=candidate, reason="node x has NVIDIA driver 535", unfit=True)


def test_a_size_that_the_images_cannot_use_is_given_back_and_not_tried_with_any_capacity(aks):
    run = run_of(aks, capacity=("spot", "on-demand"))
    first = ordering.order(run).order.candidate
    aks.cloud.until(pool(run, first), "Succeeded")
    found = ordering.order(run, known=(unfit(first),))
    assert (first, found.order.candidate) == (f"{A100}/spot", f"{V100}/spot")
    assert found.refused == (unfit(f"{A100}/spot"), unfit(f"{A100}/on-demand"))
    paper.until(lambda: list(aks.pools()) == [pool(run, f"{V100}/spot")], "the nodes of no use to go")


def test_what_the_images_cannot_use_is_not_had_though_nothing_else_can_be(aks):
    aks.cloud.scenario("dry", vmSize=V100, answer=QUOTA)
    with pytest.raises(errors.ProvisioningFailedError, match=r"none of 2 kinds of node can be had: .*driver 535"):
        ordering.order(run_of(aks), known=(unfit(f"{A100}/on-demand"),))
    assert aks.pools() == {}


def test_where_the_images_can_use_no_size_that_is_named_that_is_final(aks):
    known = (unfit(f"{A100}/on-demand"), unfit(f"{V100}/on-demand"))
    with pytest.raises(errors.UnsupportedGPUError, match=r"none of 2 kinds of node can be used: .*driver 535.*; .*535"):
        ordering.order(run_of(aks), known=known)
    out = Refusal(candidate=f"{A100}/on-demand", reason="too small")
    with pytest.raises(errors.UnsupportedGPUError, match="none of 1 kinds"):
        ordering.order(run_of(aks), known=known[1:], left_out=(out,))
    assert aks.pools() == {}


def test_a_server_on_nodes_that_new_images_cannot_use_keeps_them(aks):
    run = run_of(aks)
    candidate = ordering.order(run).order.candidate
    aks.cloud.until(pool(run, candidate), "Succeeded")
    run.cluster.join(aks.cloud, aks.cloud.machines.on()[0], works=True)
    with pytest.raises(errors.UnsupportedGPUError, match="none of 1 kinds of node can be used"):
        ordering.order(run, known=(unfit(candidate),))
    assert len(aks.pools()) == 1


def test_what_preflight_left_out_is_not_tried(aks):
    out = Refusal(candidate=f"{A100}/on-demand", reason="too small")
    found = ordering.order(run_of(aks), left_out=(out,))
    assert (found.order.candidate, found.refused) == (f"{V100}/on-demand", (out,))


def test_spot_is_a_pool_of_its_own_that_goes_when_it_is_taken_back():
    spot = dataclasses.replace(WANT, capacity="spot")
    asked = pool_body(spot)["properties"]
    assert asked["scaleSetPriority"] == "Spot"
    assert asked["scaleSetEvictionPolicy"] == "Delete"
    assert asked["spotMaxPrice"] == -1
    assert "upgradeSettings" not in asked
    assert pool_name(spot) != pool_name(WANT)
    assert "scaleSetPriority" not in pool_body(dataclasses.replace(WANT, capacity="on-demand"))["properties"]


def test_a_pool_of_an_earlier_version_keeps_its_name_and_body():
    """Or an upgrade would buy everything anew."""
    assert pool_name(WANT) == "g4370b98bf59"
    usual = dataclasses.replace(WANT, capacity="on-demand", family="ubuntu")
    assert pool_name(usual) == pool_name(WANT)
    assert set(pool_body(WANT)["properties"]["nodeLabels"]) == {"app", names.WORKSPACE, names.NAMESPACE, names.UID}


@pytest.mark.parametrize("one", ["spot", "azurelinux", "usual"])
@pytest.mark.parametrize("other", ["spot", "azurelinux", "usual"])
def test_pods_find_the_nodes_of_their_kind_and_no_others(aks, one, other):
    wants = {
        "spot": dataclasses.replace(WANT, capacity="spot"),
        "azurelinux": dataclasses.replace(WANT, family="azurelinux"),
        "usual": WANT,
    }
    aks.cloud.put(pool_name(wants[one]), **_body(wants[one]))
    aks.cloud.until(pool_name(wants[one]), "Succeeded")
    node = {"metadata": aks.cloud.machines.about(aks.cloud.machines.on()[0])}
    placement = aks.provider().placement(wants[other])
    fits = placement.labels.items() <= node["metadata"]["labels"].items() and placement.allows(node)
    assert fits is (one == other)


def _body(want):
    properties = pool_body(want)["properties"]
    return {"count": properties.pop("count"), "size": properties.pop("vmSize"), **properties}


def test_the_image_family_is_the_pool_s(aks):
    run = run_of(aks, sizes=(A100,), annotations={"kaito.sh/node-image-family": " AzureLinux "})
    ordering.order(run)
    [made] = aks.pools().values()
    assert made.os_sku == "AzureLinux"


def test_another_image_family_is_another_pool_and_the_first_one_goes_after_the_roll_out(aks):
    ordering.order(run_of(aks, sizes=(A100,), annotations={"kaito.sh/node-image-family": "azurelinux"}))
    run = run_of(aks, sizes=(A100,))
    ordering.order(run)
    assert len(aks.pools()) == 2, "until the server has moved"
    ordering.tidy(run)
    paper.until(lambda: list(aks.pools()) == [pool_name(WANT)], "the first pool to go")


def test_after_the_roll_out_nodes_of_other_kinds_go(aks):
    run = run_of(aks)
    for want in run.candidates:
        aks.cloud.put(pool_name(want), **_body(want))
    aks.cloud.put("users", tags={"owner": "somebody"})
    chosen = f"{V100}/on-demand"
    ordering.tidy(dataclasses.replace(run, candidate=chosen))
    paper.until(lambda: set(aks.pools()) == {pool(run, chosen), "users"}, "the other kind to go")
    aks.wire.whole = False
    aks.wire.cut()
    ordering.tidy(dataclasses.replace(run, candidate=chosen))  # no reason to fail a server that answers


def test_a_list_of_pools_that_cannot_be_read_ends_the_attempt(aks):
    aks.cloud.scenario("away", method="GET", path="/agentPools", answer={"status": 403, "code": "X", "message": "no"})
    with pytest.raises(errors.ProvisioningFailedError, match="403: X: no"):
        ordering.order(run_of(aks))
