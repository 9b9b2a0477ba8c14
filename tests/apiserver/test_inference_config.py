"""inference.config from the ConfigMap to the server's own config, against a real API server."""

import contextlib
import json

import pytest

from kaito_hera import checks, errors, nodes, rollout
from kaito_hera import cluster as clusters
from kaito_hera import run as runs
from kaito_hera.api import Workspace
from kaito_hera.run import Run
from serving import inference_keys
from tests import making
from workflows import asks

PRESET = {"name": "phi-3-mini-4k-instruct"}
PLACEMENT = nodes.Placement(labels={"a": "b"})


@pytest.fixture
def written(cluster, namespace):
    """Write the ConfigMap that the Workspaces name."""

    def write(text, key="inference_config.yaml"):
        metadata = {"name": "params", "namespace": namespace}
        cluster.apply(clusters.CONFIG_MAP, {"metadata": metadata, "data": {key: text}})

    return write


@pytest.fixture
def opened(cluster, apply, settings):
    def open_run(size="Standard_NC24ads_A100_v4", **inference):
        body = {"preset": PRESET, "config": "params", **inference}
        stored = apply({**making.edited(making.inference(), instanceType=size), "inference": body})
        return Run(cluster, Workspace.parse(stored), settings, runs.provider(cluster, settings))

    return open_run


def deployed(run):
    """Roll out; the pod template and the server's own config."""
    rollout.apply(run, asks.serving.server(run, ""), PLACEMENT)
    namespace = run.workspace.metadata.namespace
    found = run.cluster.get(clusters.DEPLOYMENT, "w", namespace)
    files = run.cluster.get(clusters.CONFIG_MAP, "w-serving", namespace)["data"]
    return found["spec"]["template"], json.loads(files["serving.json"])


def test_what_the_engine_can_do_reaches_the_server(opened, written):
    written(
        "vllm: {max-model-len: 1024, served-model-name: house, dtype: half, chat-template: '{{ messages }}', "
        "tool-call-parser: hermes}"
    )
    _, config = deployed(opened())
    assert (config["context"], config["name"], config["dtype"]) == (1024, "house", "float16")
    assert config["chat_template"] == "{{ messages }}"
    assert config["tool_call_parser"] == "hermes"


def test_without_one_the_server_s_config_is_what_it_always_was(opened):
    _, config = deployed(opened(config=""))
    assert not config.keys() & {"context", "dtype", "chat_template", "tool_call_parser"}
    assert config["name"] == PRESET["name"]


def test_a_change_is_taken_up_by_the_next_roll_out_and_by_it_alone(opened, written):
    written("vllm: {max-model-len: 1024}")
    run = opened()
    before, _ = deployed(run)
    assert deployed(run)[0] == before
    written("vllm: {max-model-len: 2048}")
    after, config = deployed(run)
    assert config["context"] == 2048
    assert after["metadata"]["annotations"] != before["metadata"]["annotations"]


def test_what_has_no_effect_is_a_warning_that_names_the_config_map(opened, written, namespace):
    written("max_probe_steps: 4\nvllm: {cpu-offload-gb: 0, swap-space: 9}\n")
    where = f"inference.config: ConfigMap {namespace}/params: inference_config.yaml"
    assert asks.wanted(opened(), 1).warnings == (
        f"{where}: max_probe_steps: 4 has no effect, {inference_keys.TOP['max_probe_steps'].reason}",
        f"{where}: vllm.swap-space: 9 has no effect, {inference_keys.IDLE['swap-space'].reason}",
    )


def test_the_memory_of_a_longer_context_and_of_wider_numbers_is_counted(opened, written):
    run = opened()

    def needed(text):
        written(text)
        (demand,) = asks.wanted(run, 1).demands
        return demand.gib

    usual, short = needed(""), needed("vllm: {max-model-len: 512}")
    assert short < usual < needed("vllm: {max-model-len: 4096}")
    assert needed("vllm: {dtype: float32}") > 1.5 * usual


@pytest.mark.parametrize(
    ("text", "inference", "words"),
    [
        (
            "vllm: {max-model-len: 4097}",
            {},
            "vllm.max-model-len: 4097 is more than phi-3-mini-4k-instruct takes; write",
        ),
        ("vllm: {max-model-lenn: 1}", {}, "inference_config.yaml: vllm.max-model-lenn: unknown key with value 1; did"),
        (
            "vllm: {served-model-name: style}",
            {"adapters": [{"source": {"name": "style", "image": "team.azurecr.io/style:1"}}]},
            "vllm.served-model-name: 'style' is the name of an adapter",
        ),
    ],
)
def test_what_cannot_be_is_told_before_anything_is_bought(opened, written, namespace, text, inference, words):
    written(text)
    with pytest.raises(errors.ConfigInvalidError) as raised:
        asks.wanted(opened(**inference), 1)
    assert str(raised.value).startswith(f"inference.config: ConfigMap {namespace}/params: inference_config.yaml: ")
    assert words in str(raised.value)


@pytest.mark.parametrize(("size", "refused"), [("Standard_NC24ads_A100_v4", False), ("Standard_NC4as_T4_v3", True)])
def test_bfloat16_is_refused_on_a_gpu_that_has_none(opened, written, settings, size, refused):
    written("vllm: {dtype: bfloat16}")
    run = opened(size)
    said = r"Standard_NC4as_T4_v3 has NVIDIA T4.* does not compute bfloat16; inference\.config asks for it"
    expected = pytest.raises(errors.UnsupportedGPUError, match=said) if refused else contextlib.nullcontext()
    with expected:
        checks.pass_memory(run.workspace, settings, asks.wanted(run, 1).demands)


def test_a_config_map_that_is_not_there_yet_is_waited_for(opened, namespace):
    with pytest.raises(errors.ConfigMapNotFoundError, match=f"inference.config: ConfigMap {namespace}/params is miss"):
        asks.wanted(opened(), 1)


def test_a_config_map_without_the_file_is_told(opened, written):
    written("vllm: {}", key="inference.yaml")
    with pytest.raises(errors.ConfigInvalidError, match=r"has no key inference_config.yaml, it has inference.yaml"):
        asks.wanted(opened(), 1)


def test_for_a_pod_of_the_user_s_own_it_has_no_effect_and_that_is_said(opened):
    run = opened(preset=None, template={"spec": {"containers": [{"name": "c", "image": "i"}]}})
    said = "inference.config: params has no effect, a pod of your own mounts its own settings"
    assert asks.wanted(run, 1).warnings[0] == said
