"""A server of vLLM's: its image, its GPUs, and what it is told; ours stays as it was."""

import copy
import json

import pytest

import presets
from kaito_hera import models, nodes, rollout, runtimes
from kaito_hera.nodes.byo import ByoProvider
from kaito_hera.settings import Settings
from serving import driver
from serving import settings as surroundings
from serving.inference_config import parse
from tests import making
from workflows import configs
from workflows.asks import serving

IMAGE = "registry.example/kaito-hera-serving-vllm:1"
WITH = Settings(vllm_image=IMAGE)


LORA = {"enable_lora": False}


def rolled_out(settings, runtime="vllm", text="vllm: {}"):
    made = making.inference(annotations={"kaito.sh/runtime": runtime})
    made["resource"]["instanceType"] = "Standard_NC96ads_A100_v4"
    workspace = making.parsed(made)
    chosen, _ = parse(text, runtime)
    server = serving.expected(workspace, settings, chosen)
    placement = ByoProvider(None).placement(nodes.wanted(workspace))
    pod = rollout.pod_template(workspace, settings, server, placement)["spec"]
    return json.loads(server.files["serving.json"]), pod


def test_a_server_that_is_to_end_takes_requests_until_nobody_sends_it_any():
    _, pod = rolled_out(WITH)
    [container] = pod["containers"]
    sleeps = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] - sleeps >= surroundings.DRAIN_SECONDS + driver.LINGER_SECONDS


def test_vllm_has_its_image_and_all_gpus_of_a_node():
    config, pod = rolled_out(WITH, text="vllm: {max-num-seqs: 8, max-model-len: 4096}")
    [container] = pod["containers"]
    assert container["image"] == IMAGE
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "4"
    assert (config["runtime"], config["vllm"], config["context"]) == ("vllm", LORA | {"max_num_seqs": 8}, 4096)
    [shm] = [volume for volume in pod["volumes"] if volume["name"] == "shm"]
    assert shm["emptyDir"]["sizeLimit"] == "4Gi"


def test_vllm_is_started_for_adapters_where_there_are_any():
    for made, has in ((making.inference(), False), (making.tuning(), True), (with_adapter(), True)):
        made["metadata"]["annotations"] = {"kaito.sh/runtime": "vllm"}
        server = serving.expected(making.parsed(made), WITH)
        assert json.loads(server.files["serving.json"])["vllm"] == {"enable_lora": has}


@pytest.mark.parametrize(
    ("edit", "text", "said"),
    [
        ({}, "", "the first one restarts"),
        (
            {"adapters": [{"source": {"name": "mine", "image": "a.io/x:1"}, "strength": "1.0"}]},
            "",
            "taking the last one",
        ),
        ({}, "vllm: {max-num-seqs: 8}", "the first one restarts"),
        ({}, "vllm: {enable-lora: true}", ""),
        ({"preset": {"name": "Qwen/Qwen3-8B-AWQ"}}, "", "the first one restarts"),
    ],
)
def test_whether_adapters_restart_vllm_is_said_and_is_so(edit, text, said):
    made = making.inference(annotations={"kaito.sh/runtime": "vllm"})
    made["inference"] |= edit | ({"config": "mine"} if text else {})
    chosen, warnings = read(made, text)
    told = [warning for warning in warnings if "restarts the server" in warning]
    assert [said in warning for warning in told] == ([True] if said else [])
    other = copy.deepcopy(made)
    other["inference"]["adapters"] = [] if edit.get("adapters") else with_adapter()["inference"]["adapters"]
    cold = [serving.expected(making.parsed(one), WITH, chosen).files["serving.json"] for one in (made, other)]
    assert (cold[0] != cold[1]) == bool(said)


def test_nothing_is_said_where_adapters_never_restart_it():
    tuned = making.tuning(annotations={"kaito.sh/runtime": "vllm"})
    bare = next(name for name, model in presets.presets().items() if runtimes.WITHOUT_ADAPTERS in model.limits)
    own = making.inference(annotations={"kaito.sh/runtime": "vllm"})
    own["inference"]["preset"]["name"] = bare
    assert not [text for made in (tuned, own) for text in read(made)[1] if "restarts" in text]
    assert not read(making.inference(), runtime="transformers")[1]


def read(made, text="", runtime="vllm"):
    """What is honoured of an inference_config.yaml, and what is said of it."""
    workspace = making.parsed(made)
    found = configs.inference(workspace, models.find(workspace), lambda *_: {"inference_config.yaml": text}, runtime)
    return found.honoured, found.warnings


def with_adapter():
    made = making.inference()
    made["inference"]["adapters"] = [{"source": {"name": "mine", "image": "a.io/x:1"}, "strength": "1.0"}]
    return made


@pytest.mark.parametrize(
    ("preset", "size", "asked"),
    [
        ("falcon-7b", "Standard_NC96ads_A100_v4", "1"),  # 71 heads
        ("phi-4", "Standard_NC96ads_A100_v4", "4"),
        ("acme/unknown", "Standard_NC96ads_A100_v4", "4"),
    ],
)
def test_vllm_has_one_gpu_of_a_model_that_it_cannot_divide(preset, size, asked):
    assert gpus(preset, size, runtime="vllm") == {"nvidia.com/gpu": asked}


@pytest.mark.parametrize(("settings", "runtime"), [(WITH, "transformers"), (Settings(), "vllm")])
def test_our_engine_is_told_nothing_of_it(settings, runtime):
    config, pod = rolled_out(settings, runtime)
    [container] = pod["containers"]
    assert container["image"] == settings.image("serving")
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert not {"runtime", "vllm"} & config.keys()
    [shm] = [volume for volume in pod["volumes"] if volume["name"] == "shm"]
    assert shm["emptyDir"]["sizeLimit"] == "256Mi"


def gpus(preset, size, partition=None, runtime="", settings=WITH):
    """What the server's pod asks for on such nodes."""
    made = making.inference(annotations={"kaito.sh/runtime": runtime} if runtime else {})
    made["resource"] |= {"instanceType": size} | ({"partition": partition} if partition else {})
    made["inference"]["preset"]["name"] = preset
    workspace = making.parsed(made)
    want = nodes.wanted(workspace)
    server = serving.expected(workspace, settings, want=want)
    pod = rollout.pod_template(workspace, settings, server, ByoProvider(None).placement(want))["spec"]
    return pod["containers"][0]["resources"]["limits"]


@pytest.mark.parametrize(
    ("preset", "size", "partition", "asked"),
    [
        ("phi-4", "Standard_NC96ads_A100_v4", None, {"nvidia.com/gpu": "1"}),
        ("llama-3.3-70b-instruct", "Standard_NC96ads_A100_v4", None, {"nvidia.com/gpu": "4"}),
        ("gpt-oss-120b", "Standard_NC96ads_A100_v4", {"mode": "accelerator", "count": 3}, {"nvidia.com/gpu": "3"}),
        ("phi-4", "Standard_NC64as_T4_v3", None, {"nvidia.com/gpu": "4"}),
        ("phi-4", "Standard_NC24ads_A100_v4", None, {"nvidia.com/gpu": "1"}),
        ("phi-4", "", None, {"nvidia.com/gpu": "1"}),
        ("phi-4", "", {"mode": "mig", "profile": "1g.10gb"}, {"nvidia.com/mig-1g.10gb": "1"}),
        ("acme/unknown", "Standard_NC96ads_A100_v4", None, {"nvidia.com/gpu": "4"}),
    ],
)  # fmt: skip
def test_a_server_of_ours_takes_all_gpus_where_one_does_not_hold_its_model(preset, size, partition, asked):
    assert gpus(preset, size, partition) == asked


@pytest.mark.parametrize(
    ("preset", "size", "count", "given", "over"),
    [
        ("llama-3.3-70b-instruct", "Standard_NC24ads_A100_v4", 3, {}, 3),
        ("llama-3.3-70b-instruct", "Standard_NC96ads_A100_v4", 3, {}, 1),
        ("llama-3.3-70b-instruct", "Standard_NC24ads_A100_v4", 1, {}, 1),
        ("llama-3.3-70b-instruct", "Standard_NC24ads_A100_v4", 3, {"runtime": ""}, 1),
        ("llama-3.3-70b-instruct", "Standard_NC24ads_A100_v4", 3, {"settings": Settings()}, 1),
        ("llama-3.3-70b-instruct", "", 3, {}, 1),
        ("deepseek-v3-0324", "Standard_ND96isr_H100_v5", 2, {}, 2),
        ("acme/unknown", "Standard_NC24ads_A100_v4", 3, {}, 1),
    ],
)  # fmt: skip
def test_several_nodes_serve_together_where_one_does_not_hold_the_model(preset, size, count, given, over):
    server, config = laid(preset, size, count, **given)
    assert (server.nodes, config.get("nodes", 1)) == (over, over)


def test_adapters_are_on_no_other_node_than_the_head():
    adapters = [{"source": {"name": "mine", "image": "a.io/x:1"}, "strength": "1.0"}]
    server, _ = laid("llama-3.3-70b-instruct", "Standard_NC24ads_A100_v4", 3, adapters=adapters)
    assert server.nodes == 1


def laid(preset, size, count, *, runtime="vllm", settings=WITH, adapters=()):
    made = making.inference(annotations={"kaito.sh/runtime": runtime})
    made["resource"] |= {"instanceType": size, "count": count}
    made["inference"] = {"preset": {"name": preset}, **({"adapters": adapters} if adapters else {})}
    workspace = making.parsed(made)
    server = serving.expected(workspace, settings, want=nodes.wanted(workspace))
    return server, json.loads(server.files["serving.json"])
