"""The judge of KAITO's manifests, on manifests made up here: KAITO's own are not committed."""

import pytest

from tests import making
from tests.conformance import __main__ as conformance
from tests.conformance import corpus


@pytest.fixture
def judged(cluster, namespace):
    def judge(body):
        (verdict,) = conformance.judge(cluster, namespace, (corpus.Manifest("d", "examples/a.yaml", ("HEAD",), body),))
        return verdict

    return judge


def published(made, version="v1beta1", **metadata):
    return {**made, "apiVersion": f"kaito.sh/{version}", "metadata": {"name": "w", **metadata}}


@pytest.mark.parametrize("version", ["v1alpha1", "v1beta1"])
def test_what_works_is_admitted_in_its_own_version_and_nothing_is_kept(judged, cluster, namespace, version):
    verdict = judged(published(making.inference(), version, namespace="elsewhere"))
    assert (verdict.word, verdict.says, verdict.unreplaced) == ("admitted", "", "")
    assert list(cluster.items(conformance.clusters.WORKSPACE, namespace)) == []


def test_a_refusal_tells_its_causes_in_one_order(judged):
    body = published(making.inference(), name="dots.in.it")
    body["resource"] = {"count": 0, "labelSelector": {"matchLabels": {"app": "a"}}}
    verdict = judged(body)
    assert verdict.word == "refused"
    assert "resource.count" in verdict.says
    assert verdict.says == judged(body).says


def test_a_field_that_nobody_knows_is_a_refusal(judged):
    body = published(making.inference())
    body["inference"]["preset"]["volume"] = []
    assert "inference.preset.volume" in judged(body).says


def test_a_version_that_is_not_served_is_a_refusal(judged):
    assert judged(published(making.inference(), "v1")).word == "refused"


def test_both_verdicts_are_given_for_a_manifest_with_placeholders(judged):
    body = published(making.inference())
    body["resource"]["instanceType"] = "<your-vm-sku>"
    verdict = judged(body)
    assert (verdict.word, verdict.unreplaced) == ("admitted", "refused")


@pytest.mark.parametrize(
    ("key", "text", "says"),
    [
        ("inference_config.yaml", "vllm: {max-model-len: 4096}", ""),
        ("inference_config.yaml", "vllm: {max-modellen: 4096}", "vllm.max-modellen"),
        ("training_config.yaml", "training_config: {LoraConfig: {r: 8}}", ""),
        ("training_config.yaml", "training_config: {QuantizationConfig: {load_in_4bit: true}}", ""),
        ("training_config.yaml", "training_config: {LoraConfig: {rank: 8}}", "LoraConfig.rank"),
    ],
)
def test_settings_are_read_as_preflight_reads_them(judged, key, text, says):
    verdict = judged({"kind": "ConfigMap", "metadata": {"name": "c"}, "data": {key: text}})
    assert says in verdict.says
    assert bool(verdict.says) == bool(says)
