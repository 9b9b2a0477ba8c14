"""Whether rows may stand one behind the other is asked of the model itself, and asking changes nothing."""

import pytest

from tests.tuning.training.test_head import adapted, batch, gradients, made


@pytest.mark.torch
@pytest.mark.parametrize(
    ("family", "more", "apart"),
    [
        ("phi3", {"original_max_position_embeddings": 512}, True),
        ("llama", {}, True),
        ("gemma2", {"head_dim": 16}, False),
        ("granite", {}, True),
        ("falcon", {"new_decoder_architecture": True, "num_kv_heads": 2}, False),
        ("bloom", {}, False),
        ("mamba", {}, False),
    ],
)
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_models_differ_in_what_they_heed(family, more, apart, precision):
    import torch

    from tuning.training import probe

    model = made(family, **more).to(getattr(torch, precision))
    assert (not probe.why_mixed(model)) is apart


@pytest.mark.torch
def test_a_model_with_broken_weights_ends_at_its_first_loss_and_not_here():
    import torch

    from tuning.training import probe

    model = made("llama")
    with torch.no_grad():
        model.get_output_embeddings().weight[3] = torch.nan
    assert not probe.why_mixed(model)


@pytest.mark.torch
def test_layers_of_4_bits_learn_after_it_as_before(tmp_path):
    """bitsandbytes rearranges their weights on a CPU that answers, and has no gradient for what it makes of them."""
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    from tuning.training import probe

    made("llama").save_pretrained(tmp_path)
    quantised = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)
    model = adapted(
        AutoModelForCausalLM.from_pretrained(
            tmp_path, dtype=torch.bfloat16, device_map={"": "cpu"}, quantization_config=quantised
        )
    )
    found = []
    for _ in range(2):
        model.train()
        model(**batch()).loss.backward()
        found.append(gradients(model))
        assert not probe.why_mixed(model)
        assert model.training
    assert found[0].norm() > 0
    assert torch.equal(found[0], found[1])
