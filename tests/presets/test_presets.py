import re
from pathlib import Path

import pytest
import yaml

import presets
from presets import memory

MODELS = Path(presets.__file__).parent / "models"
KAITO = yaml.safe_load((Path(__file__).parent / "kaito.yaml").read_text())
ALL = sorted(presets.presets())

BESIDE_THE_TEXT = {"gemma-3-4b-instruct": 0.80, "gemma-3-27b-instruct": 0.80}
"""GiB of a model's eyes."""


def test_every_model_that_kaito_built_in_or_lists_is_there():
    assert len(KAITO["built_in"]) == 36
    assert len(KAITO["models"]) == 60
    for name in (*KAITO["built_in"], *KAITO["models"]):
        assert presets.preset(name)


@pytest.mark.parametrize("name", ALL)
def test_a_preset_is_complete(name):
    model = presets.preset(name)
    assert model.revision is None or re.fullmatch("[0-9a-f]{40}", model.revision)
    assert model.license
    assert model.runtimes
    assert model.upstream != "hub"
    assert model.shape is not None
    per_token = 4 * model.shape.layers * model.shape.kv_heads * model.shape.head_size
    copies = 16 if name.startswith("falcon-40b") else 1  # transformers repeats its 8 heads before it keeps them
    assert model.shape.kind == "latent" or model.cache_bytes_per_token == per_token * copies
    assert model.tunable <= (model.shape.complete and model.quantisation is None and bool(model.lora_targets))
    assert model.tunable or any("tuned" in limit for limit in model.limits), "it says why not"


@pytest.mark.parametrize("name", [name for name in ALL if presets.preset(name).shape.complete])
def test_the_shape_and_the_weights_tell_the_same_story(name):
    model = presets.preset(name)
    shape = model.shape
    layers = memory.linear_parameters(shape) / 2**30
    rest = (memory.parameters(shape) / 2**30 - layers) * 2
    bytes_each = {None: 2.0, "fp8": 1.0, "awq": 0.5 + 2.5 / 128}[model.quantisation]
    beside = BESIDE_THE_TEXT.get(name, 0.80 if "Mistral3" in model.architecture else 0.0)
    assert layers * bytes_each + rest + beside == pytest.approx(model.weights_gib, rel=0.01)


@pytest.mark.parametrize("name", KAITO["models"])
def test_the_weights_are_kaitos_but_where_it_counts_a_copy_too(name):
    copies = 2 if name.startswith("openai/gpt-oss") else 1
    assert presets.preset(name).weights_gib * copies == pytest.approx(KAITO["models"][name][0], abs=0.011)


@pytest.mark.parametrize("name", KAITO["tunable"])
def test_what_kaito_tunes_can_be_tuned(name):
    assert presets.preset(name).tunable


def test_a_name_is_found_as_short_name_and_as_hub_id_whatever_its_case():
    assert presets.preset("phi-4") is presets.preset("PHI-4") is presets.preset("Microsoft/Phi-4")
    assert presets.preset("qwen/qwen3.5-2b").name == "Qwen/Qwen3.5-2B"
    assert presets.preset("meta-llama/llama-2-7b-HF").name == "llama-2-7b"


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("phi3-mini-4k-instruct", "phi-3-mini-4k-instruct"),
        ("PHI-3-MINI-4K-INSTRUKT", "phi-3-mini-4k-instruct"),
        ("microsoft/phi4", "microsoft/phi-4"),
        ("llama-3.1-8b", "llama-3.1-8b-instruct"),
    ],
)
def test_a_name_with_a_slip_suggests_the_right_one(name, meant):
    with pytest.raises(presets.UnknownNameError, match=re.escape(meant)):
        presets.preset(name)


@pytest.mark.parametrize("name", ["", "x" * 5000, "../models/phi-4", "phi-4\n", "🦜", "a/b/c"])
def test_any_other_name_is_refused_shortly(name):
    with pytest.raises(presets.UnknownNameError) as refused:
        presets.preset(name)
    assert len(str(refused.value)) < 400


def test_who_may_have_a_model_is_said():
    assert {name for name in ALL if presets.preset(name).access == "gated"} == {
        "gemma-3-27b-instruct",
        "gemma-3-4b-instruct",
        "llama-3.1-8b-instruct",
        "llama-3.3-70b-instruct",
    }
    assert all((presets.preset(name).access == "private_image") == name.startswith("llama-2") for name in ALL)


def test_what_follows_the_hub_is_seen_and_asked_for_as_its_newest():
    model = presets.preset("Qwen/Qwen3.5-2B")
    assert (model.revision, model.hub_revision) == (None, "main")
    assert presets.preset("phi-4").hub_revision == presets.preset("phi-4").revision


def test_listing_the_names_reads_no_file(tmp_path):
    (tmp_path / "broken.yaml").write_text("{")
    assert list(presets.Presets(tmp_path)) == ["broken"]


def test_a_files_name_is_its_presets():
    assert {file.stem.replace("--", "/") for file in MODELS.glob("*")} == set(presets.presets())
