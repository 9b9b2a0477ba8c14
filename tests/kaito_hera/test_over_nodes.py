"""Several nodes that hold one model together: when they do, and how many it takes."""

import presets
from kaito_hera import loads, sizing
from tests import making
from tests.kaito_hera.observing import AKS


def over(nodes, gib, gpus, preset="llama-3.3-70b-instruct"):
    demand = loads.serve(presets.preset(preset), loads.Server(vllm=True, nodes=nodes))
    return demand.over_nodes(gib, gpus), demand.way(gib, gpus)


def test_nodes_hold_a_model_together_where_one_does_not():
    assert over(3, 76, 1) == (3, 0)
    assert over(1, 76, 1) == (1, None)
    assert over(3, 76, 4) == (1, 0)
    assert over(2, 40, 1) == (2, None)


def test_each_node_s_gpus_divide_the_heads():
    assert over(3, 40, 3) == (1, None)
    assert over(3, 40, 2) == (3, 0)


def test_vllm_lays_a_model_onto_several_nodes_and_says_how_many_it_takes():
    made = making.inference(annotations={"kaito.sh/runtime": "vllm"})
    made["inference"]["preset"] = {"name": "llama-3.3-70b-instruct"}

    def found(nodes):
        demand = loads.serve(presets.preset("llama-3.3-70b-instruct"), loads.Server(vllm=True, nodes=nodes))
        [finding] = sizing.memory_findings(making.parsed(made), AKS, (demand,))
        return finding

    for nodes in (1, 2):
        assert found(nodes).fatal
        assert "set resource.count to 3: so many of these nodes hold it together" in found(nodes).remedy
    assert not found(3).fatal
    assert str(found(3)).endswith(
        "so 3 nodes hold it together, as a RayService of KubeRay's, which was never run on GPUs"
    )
    made["inference"]["adapters"] = [{"source": {"name": "mine", "image": "a.io/x:1"}, "strength": "1.0"}]
    assert "resource.count" not in found(1).remedy
