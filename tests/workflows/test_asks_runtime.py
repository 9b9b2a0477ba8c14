"""A server of vLLM's: its image, its GPUs, and what it is told; ours stays as it was."""

import json

import pytest

from kaito_hera import nodes, rollout
from kaito_hera.nodes.byo import ByoProvider
from kaito_hera.settings import Settings
from serving.inference_config import parse
from tests import making
from workflows.asks import serving

IMAGE = "registry.example/kaito-hera-serving-vllm:1"
WITH = Settings(vllm_image=IMAGE)


def rolled_out(settings, runtime="vllm", text="vllm: {}"):
    made = making.inference(annotations={"kaito.sh/runtime": runtime})
    made["resource"]["instanceType"] = "Standard_NC96ads_A100_v4"
    workspace = making.parsed(made)
    chosen, _ = parse(text, runtime)
    server = serving.expected(workspace, settings, chosen)
    placement = ByoProvider(None).placement(nodes.wanted(workspace))
    pod = rollout.pod_template(workspace, settings, server, placement)["spec"]
    return json.loads(server.files["serving.json"]), pod


def test_vllm_has_its_image_and_all_gpus_of_a_node():
    config, pod = rolled_out(WITH, text="vllm: {max-num-seqs: 8, max-model-len: 4096}")
    [container] = pod["containers"]
    assert container["image"] == IMAGE
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "4"
    assert (config["runtime"], config["vllm"], config["context"]) == ("vllm", {"max_num_seqs": 8}, 4096)
    [shm] = [volume for volume in pod["volumes"] if volume["name"] == "shm"]
    assert shm["emptyDir"]["sizeLimit"] == "4Gi"


@pytest.mark.parametrize(("settings", "runtime"), [(WITH, "transformers"), (Settings(), "vllm")])
def test_our_engine_is_told_nothing_of_it(settings, runtime):
    config, pod = rolled_out(settings, runtime)
    [container] = pod["containers"]
    assert container["image"] == settings.image("serving")
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert not {"runtime", "vllm"} & config.keys()
    [shm] = [volume for volume in pod["volumes"] if volume["name"] == "shm"]
    assert shm["emptyDir"]["sizeLimit"] == "256Mi"
