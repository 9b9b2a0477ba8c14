"""What a run settles on: by the estimate first, by what the memory says then; kept beside a checkpoint's weights."""

import contextlib
import json

import pytest

import presets
from kaito_hera import loads
from presets import memory
from tests.tuning.conftest import tuning_config
from tuning.errors import OutOfMemory
from tuning.training import ladder

PHI_3_MINI = {
    "architectures": ["Phi3ForCausalLM"],
    "model_type": "phi3",
    "hidden_size": 3072,
    "intermediate_size": 8192,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "vocab_size": 32064,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}
FIRST = ladder.Resolved(precision="bfloat16", tokens=4096, packing=True, chunked_head=True, checkpointing=False)


@pytest.fixture
def folder(tmp_path):
    """Of Phi-3-mini's files, as large as they are and empty."""
    (tmp_path / "config.json").write_text(json.dumps(PHI_3_MINI))
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.truncate(7_642_159_104)
    return tmp_path


@pytest.mark.parametrize(("gpu", "twice"), [(14.6, True), (22.1, False), (79.2, False), (None, False)])
def test_activations_are_kept_where_they_fit(folder, gpu, twice):
    config = tuning_config("reg.io/a:1", ["https://x/y"])
    needed = ladder.needed_gib(config, folder, 2048, chunked=True)
    assert 12 < needed < 16  # 13.7 in the project's table of facts
    assert ladder.must_recompute(None, needed, gpu) is twice


def test_lora_needs_more_than_qlora_and_all_logits_more_than_none(folder):
    config = tuning_config("reg.io/a:1", ["https://x/y"])
    lora = tuning_config("reg.io/a:1", ["https://x/y"], method="lora")
    eight = tuning_config("reg.io/a:1", ["https://x/y"], training={"quantization": {"load_in_8bit": True}})
    four, none, whole = (ladder.needed_gib(each, folder, 2048, chunked=True) for each in (config, lora, eight))
    assert four < whole < none
    assert ladder.needed_gib(config, folder, 2048, chunked=False) > four
    assert ladder.needed_gib(config, folder, 2048, chunked=True, gpus=2) > four + 0.5, "they talk to each other"


@pytest.mark.parametrize("recompute", [True, False])
@pytest.mark.parametrize("rows", [1, 2, 3, 5, 16])
def test_what_is_tried_after_another_is_what_the_operator_counts_with(rows, recompute):
    model, batch = presets.preset("phi-4"), loads.Batch(rows=rows, recompute=recompute)
    tried = [FIRST.model_copy(update={"tokens": batch.tokens, "checkpointing": recompute})]
    with contextlib.suppress(OutOfMemory):
        while True:
            tried.append(ladder.lower(tried[-1], batch.length, batch.tokens, "test"))
    needs = [memory.tuning(model, "qlora", tokens=one.tokens, rank=8, recompute=one.checkpointing) for one in tried]
    assert [way.need for way in loads.tune(model, "qlora", batch).ways] == needs


@pytest.mark.parametrize(("asked", "gib", "gpu"), [(True, 1.0, 80), (False, 500.0, 16), (True, None, None)])
def test_what_the_user_says_counts(asked, gib, gpu):
    assert ladder.must_recompute(asked, gib, gpu) is asked


def test_a_model_that_nobody_understands_is_taken_as_large(tmp_path):
    assert ladder.needed_gib(tuning_config("reg.io/a:1", ["https://x/y"]), tmp_path, 2048, chunked=True) is None
    assert ladder.must_recompute(None, None, 80)


def test_the_rungs():
    now = FIRST
    for tokens, twice in [(1500, False), (750, False), (600, False), (600, True)]:
        now = ladder.lower(now, 600, 3000, "CUDA")
        assert now == FIRST.model_copy(update={"tokens": tokens, "checkpointing": twice})
    with pytest.raises(OutOfMemory, match=r"one row of 600 tokens at once .*\(CUDA\); take a larger resource"):
        ladder.lower(now, 600, 3000, "CUDA")


def test_it_is_read_as_it_was_written(tmp_path):
    FIRST.write(tmp_path)
    assert ladder.Resolved.of(tmp_path) == FIRST
    assert "at most 4096 tokens at once, rows packed, loss without all logits, activations kept" in FIRST.told()
    (tmp_path / ladder.NAME).write_text("{}")
    with pytest.raises(ValueError, match="precision"):
        ladder.Resolved.of(tmp_path)
