import datetime

import pytest

import presets
from presets import memory

NOW = datetime.date(2026, 11, 21)


def invented(gib, shape, **facts):
    """A model that no file describes."""
    return presets.preset("phi-4").model_copy(
        update={"name": "invented", "weights_gib": gib, "shape": shape, "cache_bytes_per_token": None, **facts}
    )


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
def test_memory_to_tune_with_the_logits_of_a_whole_batch(name, method, gib):
    assert memory.tuning_gib(presets.preset(name), method, tokens=2048, rank=8) == pytest.approx(gib, abs=0.1)


def test_memory_to_tune_grows_with_what_is_asked():
    model = presets.preset("phi-4-mini-instruct")
    small = memory.tuning_gib(model, "qlora", tokens=2048, rank=8)
    assert memory.tuning_gib(model, "qlora", tokens=4096, rank=8) > small + 4, "the logits of 200,000 words"
    assert memory.tuning_gib(model, "qlora", tokens=2048, rank=64) > small + 1
    assert memory.tuning_gib(model, "qlora", tokens=2048, rank=8, recompute=False) > small + 5


def test_what_fits_has_a_margin():
    size = presets.size("Standard_NC4as_T4_v3")
    assert memory.fits(13.3, size)
    assert not memory.fits(13.4, size), "error correction keeps 8 % of a T4"
    assert not memory.fits(20, presets.size("Standard_NC64as_T4_v3")), "four small cards are not one large one"
