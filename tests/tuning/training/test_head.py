"""The loss without the logits is transformers' own, and so is its gradient; other heads are left to the library."""

import gc
import weakref

import pytest

from tuning.data.masks import IGNORED
from tuning.training_config import LoraConfig

FAMILIES = {
    "phi3": {"original_max_position_embeddings": 512},
    "phi": {},
    "llama": {},
    "llama tied": {"tie_word_embeddings": True},
    "mistral": {},
    "qwen2": {},
    "qwen3": {"head_dim": 16},
    "gemma": {"head_dim": 16},
    "olmo2": {},
    "smollm3": {},
    "seed_oss": {"head_dim": 16},
    "falcon": {"new_decoder_architecture": True, "num_kv_heads": 2},
}


def made(family, **more):
    """A tiny model of the family."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(
        family.split()[0],
        vocab_size=700,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        pad_token_id=0,
        bos_token_id=0,
        eos_token_id=0,
        **{**FAMILIES.get(family, {}), **more},
    )
    return AutoModelForCausalLM.from_config(config).eval()


def adapted(model):
    """With an adapter that does something, in training but without what is random."""
    import torch

    from tuning.training.model import attach

    model.config.use_cache = False
    found = attach(model, LoraConfig(r=4))
    torch.manual_seed(1)
    for name, parameter in found.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    return found


def batch():
    import torch

    torch.manual_seed(2)
    ids = torch.randint(1, 700, (2, 300))
    labels = ids.clone()
    labels[:, :7] = IGNORED
    labels[1, 100:] = IGNORED
    return {"input_ids": ids, "labels": labels, "attention_mask": torch.ones_like(ids)}


def gradients(model):
    import torch

    found = torch.cat([each.grad.flatten() for each in model.parameters() if each.grad is not None])
    model.zero_grad()
    return found


@pytest.mark.torch
@pytest.mark.parametrize("family", FAMILIES)
def test_loss_and_gradient_are_the_librarys(family):
    from tuning.training import head

    model = adapted(made(family))
    assert head.why_not(model) == ""
    inputs, count = batch(), int((batch()["labels"][:, 1:] != IGNORED).sum())
    expected = model(**inputs, num_items_in_batch=count).loss
    expected.backward()
    wanted = gradients(model)
    found = head.Watched(model).loss(model, inputs) / count
    found.backward()
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    difference = (gradients(model) - wanted).norm() / wanted.norm()
    assert wanted.norm() > 0
    assert difference < 1e-5


@pytest.mark.torch
@pytest.mark.parametrize(
    ("family", "more", "why"),
    [
        ("gemma2", {"head_dim": 16}, "the head of gemma2 is not known to be one plain linear layer"),
        ("granite", {"logits_scaling": 8.0}, "the head of granite"),
        ("cohere", {}, "the head of cohere"),
    ],
)
def test_heads_that_do_more_are_left_to_the_library(family, more, why):
    from tuning.training import head

    assert head.why_not(adapted(made(family, **more))).startswith(why)


@pytest.mark.torch
def test_what_else_wants_all_logits():
    import torch

    from tuning.training import head

    model = adapted(made("llama"))
    assert "label_smoothing_factor" in head.why_not(model, label_smoothing=0.1)
    model.get_output_embeddings().weight.requires_grad_()
    assert head.why_not(model) == "the head is trained"
    model.get_base_model().set_output_embeddings(torch.nn.Identity())
    assert head.why_not(model) == "the head is a Identity"


@pytest.mark.torch
def test_a_pass_that_ends_at_the_head_leaves_no_activations_behind():
    import torch

    from tuning.training import head

    class NoRoom(torch.nn.Linear):
        def forward(self, hidden):
            seen.append(weakref.ref(hidden))
            raise torch.OutOfMemoryError

    model, seen = adapted(made("llama")), []
    model.get_base_model().set_output_embeddings(NoRoom(64, 700, bias=False))
    watched = head.Watched(model)
    with pytest.raises(torch.OutOfMemoryError):
        watched.loss(model, batch())
    gc.collect()
    held = [each for each in gc.get_objects() if type(each) is torch.Tensor and each.shape == (2, 300, 64)]
    assert [seen[0](), held] == [None, []]


@pytest.mark.torch
def test_half_precision_keeps_what_a_large_vocabulary_gives_each_word():
    """float16 has no more than five digits of a chance of one in 200,000, and none below 6e-8."""
    import torch

    from tuning.training import head

    torch.manual_seed(0)
    hidden, weight = torch.randn(40, 32), 0.1 * torch.randn(50_000, 32)
    targets = torch.randint(0, 50_000, (40,))
    wanted = hidden.clone().requires_grad_()
    torch.nn.functional.cross_entropy(wanted @ weight.T, targets, reduction="sum").backward()
    half = hidden.half().requires_grad_()
    (head.summed(half, weight.half(), None, targets) * 1024).backward()
    difference = (half.grad.float() / 1024 - wanted.grad).norm() / wanted.grad.norm()
    assert difference < 2e-3
