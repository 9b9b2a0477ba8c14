"""Nodes whose GPUs or driver the images cannot use, as GPU feature discovery labels them."""

import pytest

from kaito_hera import errors, nodes
from kaito_hera.nodes import drivers, readiness
from kaito_hera.nodes.byo import ByoProvider
from kaito_hera.run import Run
from kaito_hera.settings import Settings
from presets.kernels import PINNED
from tests import making
from tests.kaito_hera.nodes.conftest import order
from tests.kaito_hera.nodes.test_byo import Cluster


def labelled(**labels):
    return {f"nvidia.com/{key.replace('_', '.').replace('..', '-')}": value for key, value in labels.items()}


V100 = labelled(gpu_compute_major="7", gpu_compute_minor="0")
H100 = labelled(gpu_compute_major="9", gpu_compute_minor="0")
OLD = labelled(cuda_driver_major="535", cuda_driver_minor="183", cuda_driver_rev="01")
NEW = labelled(cuda_driver__version_major="580", cuda_driver__version_minor="65", cuda_driver__version_revision="06")


def gpu_node(labels=None, **more):
    return making.node(labels={"app": "phi", **(labels or {})}, **more)


@pytest.mark.parametrize(
    ("labels", "why"),
    [
        pytest.param({}, "", id="nobody-says-anything"),
        pytest.param(H100 | NEW, "", id="new-enough"),
        pytest.param(V100 | NEW, "has GPUs of CUDA capability 7.0", id="no-kernels"),
        pytest.param(H100 | OLD, "has NVIDIA driver 535.183.1; the images need 580.65.06 or newer", id="old-driver"),
        pytest.param(OLD | NEW, "", id="the-newer-labels-count"),
        pytest.param(labelled(cuda_driver_major="580", cuda_driver_minor="65", cuda_driver_rev=""), "", id="short"),
        pytest.param(
            labelled(cuda_driver_major="580", cuda_driver_minor="64", cuda_driver_rev=""), "has", id="short-old"
        ),
        pytest.param(labelled(gpu_compute_major="7"), "", id="half-a-capability"),
        pytest.param(labelled(gpu_compute_major="x", gpu_compute_minor="²", cuda_driver_major=""), "", id="no-numbers"),
    ],
)
def test_a_node_says_what_it_has(labels, why):
    said = drivers.refused(gpu_node(labels), PINNED)
    assert said.startswith(why) if why else said == ""


def test_of_brought_nodes_those_that_the_images_cannot_use_are_passed_over():
    want = nodes.wanted(making.parsed(making.inference()), has=PINNED)
    found = [gpu_node(V100, name="a"), gpu_node(H100 | NEW, name="b")]
    assert order(ByoProvider(Cluster(found)), want).hostnames == ("b",)
    with pytest.raises(errors.NoNodesMatchError, match=r"a has GPUs of CUDA capability 7\.0 .*the images have 7\.5, 8"):
        order(ByoProvider(Cluster(found[:1])), want)
    assert order(ByoProvider(Cluster(found)), nodes.wanted(making.parsed(making.inference()))).hostnames == ("a",)


class Standing(Cluster):
    """Nodes that stay as they are."""

    def page(self, kind, namespace=None, *, labels=""):
        return {"items": self.items(kind, namespace, labels=labels)}


def run(labels, workspace=None, **settings):
    cluster = Standing([gpu_node(labels)])
    asked = making.parsed(workspace or making.inference())
    return Run(cluster, asked, Settings(node_steady_seconds=0, **settings), ByoProvider(cluster))


def test_a_node_that_will_never_do_is_not_waited_for():
    with pytest.raises(
        errors.UnsupportedGPUError, match=r"^node node-1 has NVIDIA driver 535.*a newer driver, or images"
    ):
        readiness.await_ready(run(H100 | OLD), ("node-1",))
    assert readiness.await_ready(run(H100 | NEW), ("node-1",)) == ["node-1"]


def test_where_other_sizes_may_do_the_next_attempt_goes_on_with_them():
    several = making.inference()
    several["resource"] |= {"instanceTypes": [several["resource"].pop("instanceType"), "Standard_ND96isr_H100_v5"]}
    with pytest.raises(errors.UnsupportedNodeError, match=r"^node node-1 has NVIDIA driver 535") as ended:
        readiness.await_ready(run(H100 | OLD, several), ("node-1",))
    assert ended.value.retryable


def test_where_the_cpu_may_do_or_the_pod_is_the_user_s_own_nothing_is_asked_of_the_gpu():
    assert readiness.await_ready(run(V100, gpu_capability_check="warn"), ("node-1",)) == ["node-1"]
    own = making.inference()
    own["inference"] = {"template": {"spec": {"containers": [{"name": "c", "image": "i"}]}}}
    assert readiness.await_ready(run(V100 | OLD, own), ("node-1",)) == ["node-1"]


def test_images_for_older_gpus_take_older_nodes():
    older = '{capabilities: ["7.0", "7.5"], minimumDriver: "525.60.13"}'
    built = Settings.of({"kernels": older}).kernels
    assert readiness.await_ready(run(V100 | OLD, kernels=built), ("node-1",)) == ["node-1"]
