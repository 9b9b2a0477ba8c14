"""Those of KAITO's rules that need the node provider, the cluster or a ConfigMap: what preflight says to them."""

import json

import pytest

from kaito_hera import cluster as clusters
from kaito_hera.api import Workspace
from kaito_hera.settings import Settings
from tests import making
from tests.apiserver.test_rules import patched
from workflows import steps

BROUGHT = Settings(node_provider="byo")
SIZE = making.inference()["resource"]["instanceType"]


@pytest.fixture
def told(apply, kubeconfig, monkeypatch, tmp_path, cluster):
    """Runs a step for a Workspace that is stored; its last words, empty when it passed."""
    log = tmp_path / "termination-log"
    monkeypatch.setenv("TERMINATION_LOG", str(log))

    def run(workspace, settings, step=steps.preflight, taken=steps.Known):
        stored = Workspace.parse(apply(workspace))
        with pytest.raises(SystemExit):
            step(taken(workspace=stored, settings=settings, attempt=1))
        return json.loads(log.read_text())

    return run


@pytest.fixture
def config(cluster, namespace):
    def create(text):
        body = {"metadata": {"name": "mine", "namespace": namespace}, "data": {"inference_config.yaml": text}}
        cluster.create(clusters.CONFIG_MAP, body)

    return create


def test_v4_new_nodes_need_a_size(told, settings):
    workspace = patched(making.inference(), {"resource": {"instanceType": None}})
    word = told(workspace, settings)
    assert word["reason"] == "InvalidWorkspace"
    assert word["message"].startswith("resource.instanceType: is missing")


def test_v11_new_nodes_are_not_partitioned(told, settings):
    workspace = patched(making.inference(), {"resource": {"partition": {"mode": "accelerator", "count": 2}}})
    word = told(workspace, settings)
    assert not word["retryable"]
    assert "resource.partition" in word["message"]


@pytest.mark.parametrize(
    ("labels", "words"), [({"app": "nobody-has-this"}, "nobody-has-this"), ({"a": "b", "c": "d"}, "c=d")]
)
def test_v15_brought_nodes_must_be_there(told, labels, words):
    resource = {"instanceType": None, "labelSelector": {"matchLabels": {"app": None, **labels}}}
    brought = patched(making.inference(), {"resource": resource})
    word = told(brought, BROUGHT, steps.provision_nodes, steps.Ordered)
    assert word["reason"] == "NoNodesMatch"
    assert word["retryable"], "a node may be on its way"
    assert words in word["message"]


def test_v16_a_slice_must_hold_the_model(told):
    resource = {"partition": {"mode": "mig", "profile": "1g.5gb"}}
    word = told(patched(making.inference(), {"resource": resource}), BROUGHT)
    assert word["reason"] == "InsufficientGPUMemory"
    assert "5 GiB" in word["message"]


def test_v28_a_config_must_be_there(told, settings, namespace):
    word = told(patched(making.inference(), {"inference": {"config": "mine"}}), settings)
    assert word["reason"] == "ConfigMapNotFound"
    assert f"inference.config: ConfigMap {namespace}/mine is missing" in word["message"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("a: [b", "YAML", id="no-yaml"),
        pytest.param("vllm: 1", "vllm", id="no-map"),
        pytest.param("vllm: {max-model-len: long}", "max-model-len", id="v29-no-number"),
        pytest.param("vllm: {max-model-len: 1000000}", "4096", id="v29-above-the-models"),
    ],
)
def test_v28_a_config_must_mean_something(told, config, settings, text, words):
    config(text)
    word = told(patched(making.inference(), {"inference": {"config": "mine"}}), settings)
    assert word["reason"] == "ConfigInvalid"
    assert "inference.config" in word["message"]
    assert words in word["message"]
