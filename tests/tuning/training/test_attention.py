"""Rows that stand one behind the other get the scores and gradients that each gets alone, on both sides of a window."""

import pytest

from tests.tuning.training.test_head import adapted, gradients, made

LENGTHS = [3, 40, 17, 64, 1]
FAMILIES = {
    "phi3": {"original_max_position_embeddings": 512, "sliding_window": 20},
    "mistral": {"sliding_window": 40},
    "llama": {},
    "qwen2": {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1},
    "gemma3_text": {"head_dim": 16, "sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"]},
    "gemma": {"head_dim": 16},
}


def rows():
    import torch

    torch.manual_seed(3)
    return torch.randint(1, 700, (1, sum(LENGTHS))).split(LENGTHS, 1)


@pytest.mark.torch
@pytest.mark.parametrize("computed_twice", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_line_is_its_rows(family, computed_twice):
    import torch

    from tuning.training import attention
    from tuning.training.model import recompute

    model = adapted(made(family, **FAMILIES[family]))
    torch.manual_seed(4)
    weights = torch.randn(sum(LENGTHS), 700)
    alone = torch.cat([model(input_ids=row).logits[0] for row in rows()])
    (alone * weights).sum().backward()
    wanted = gradients(model)

    if computed_twice:
        recompute(model)
        model.train()
    attention.by_rows(model)
    positions = torch.cat([torch.arange(length) for length in LENGTHS])[None]
    line = model(input_ids=torch.cat(rows(), 1), position_ids=positions, row_lengths=LENGTHS).logits[0]
    assert (line - alone).norm() < 1e-5 * alone.norm()
    (line * weights).sum().backward()
    assert torch.allclose(model(input_ids=rows()[3]).logits[0], alone[-65:-1], atol=1e-5)  # no lengths: one row
    assert (gradients(model) - wanted).norm() < 1e-5 * wanted.norm()


@pytest.mark.torch
@pytest.mark.parametrize(
    ("family", "more", "why"),
    [
        ("falcon", {"new_decoder_architecture": True, "num_kv_heads": 2}, "code of its own"),
        ("gemma2", {"head_dim": 16}, "torch has no kernels for"),
        ("llama4_text", {"attention_chunk_size": 32, "head_dim": 16}, "attention_chunk_size"),
    ],
)
def test_it_says_what_it_is_not_for(family, more, why):
    from tuning.training import attention

    assert why in attention.why_not(made(family, **more))
