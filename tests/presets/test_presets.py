import pytest

import presets
from presets import memory


@pytest.mark.parametrize("name", sorted(presets.presets()))
def test_a_preset_is_complete(name):
    preset = presets.preset(name)
    assert len(preset.revision) == 40
    assert preset.shape.hidden % preset.shape.heads == 0
    parameters = preset.weights_gib * 2**30 / 2
    s = preset.shape
    head = s.hidden // s.heads
    layer = 2 * s.hidden * s.hidden + 2 * s.hidden * s.kv_heads * head + 3 * s.hidden * s.intermediate
    estimated = s.layers * layer + s.vocabulary * s.hidden * (1 if s.tied_embeddings else 2)
    assert estimated == pytest.approx(parameters, rel=0.03), "the shape and the weights tell different stories"


def test_the_seeds_presets_are_there():
    assert {"phi-3-mini-4k-instruct", "phi-3-mini-128k-instruct"} <= set(presets.presets())


@pytest.mark.parametrize("size", presets.sizes().values(), ids=lambda size: size.name)
def test_a_size_is_plausible(size):
    major, _, minor = size.capability.partition(".")
    assert major.isdigit()
    assert minor.isdigit()
    assert size.gpu_memory_gib / size.gpus >= 8


def test_a_name_with_a_slip_suggests_the_right_one():
    with pytest.raises(presets.UnknownNameError, match="phi-3-mini-4k-instruct"):
        presets.preset("phi3-mini-4k-instruct")
    assert presets.size("standard_nc6S_V3").name == "Standard_NC6s_v3"


@pytest.mark.parametrize(
    ("name", "method", "gib"),
    [
        ("phi-3-mini-4k-instruct", "qlora", 4.3),
        ("phi-3-mini-4k-instruct", "lora", 9.6),
        ("phi-4-mini-instruct", "qlora", 8.3),
        ("phi-4", "qlora", 13.3),
        ("phi-4", "lora", 33.1),
        ("qwen2.5-coder-32b-instruct", "qlora", 25.5),
    ],
)
def test_memory_to_tune_follows_the_formula_that_was_checked_against_published_figures(name, method, gib):
    assert memory.tuning_gib(presets.preset(name), method, tokens=2048, rank=8) == pytest.approx(gib, abs=0.1)


def test_memory_to_tune_grows_with_what_is_asked():
    model = presets.preset("phi-4-mini-instruct")
    small = memory.tuning_gib(model, "qlora", tokens=2048, rank=8)
    assert memory.tuning_gib(model, "qlora", tokens=4096, rank=8) > small + 4, "the logits of 200,000 words"
    assert memory.tuning_gib(model, "qlora", tokens=2048, rank=64) > small + 1
    assert memory.tuning_gib(model, "qlora", tokens=2048, rank=8, recompute=False) > small + 5


def test_what_fits_has_a_margin():
    size = presets.size("Standard_NC4as_T4_v3")
    assert memory.fits(13.8, size)
    assert not memory.fits(13.9, size)
    assert not memory.fits(20, presets.size("Standard_NC64as_T4_v3")), "four small cards are not one large one"
