"""The base model: what stops it from being loaded, and which of its layers are adapted."""

import contextlib
import logging

import pytest

from presets.kernels import PINNED
from tuning import errors
from tuning.config import Exit
from tuning.training import model
from tuning.training_config import LoraConfig

ALL_LINEAR = ["down_proj", "gate_up_proj", "o_proj", "qkv_proj"]


@pytest.mark.torch
@pytest.mark.parametrize(
    ("wanted", "excluded", "found"),
    [
        ([], [], ALL_LINEAR),
        ([], ["o_proj"], ["down_proj", "gate_up_proj", "qkv_proj"]),
        (["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "down_proj", "up_proj"], [], ALL_LINEAR),
        (["model.layers.0.mlp.down_proj"], [], ["down_proj"]),
        (["qkv_proj", "down_proj"], ["down_proj"], ["qkv_proj"]),
        ([], ["lm_head"], "LoraConfig.exclude_modules: 'lm_head' is no linear layer of this model"),
        (["o_proj"], ["o_proj"], "LoraConfig.exclude_modules leaves no layer to adapt"),
    ],
)
def test_layers_to_adapt(wanted, excluded, found):
    from tests.tuning import tiny

    config = LoraConfig(target_modules=wanted, exclude_modules=excluded)
    if isinstance(found, list):
        assert model.targets(tiny.model(300), config) == found
    else:
        with pytest.raises(errors.ConfigInvalid, match=found):
            model.targets(tiny.model(300), config)


@pytest.mark.torch
def test_memory_that_does_not_suffice_is_told_from_other_errors():
    import torch

    explained = errors.explain(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."))
    assert explained.code == Exit.DOES_NOT_FIT
    assert errors.explain(torch.AcceleratorError("CUDA error: unspecified launch failure")).code == Exit.NODE_TROUBLE


def fail_to_convert(error):
    """As transformers does where a weight cannot be quantised."""
    from transformers import modeling_utils
    from transformers.core_model_loading import SkipParameters, log_conversion_errors
    from transformers.utils.loading_report import LoadStateDictInfo, log_state_dict_report

    from tests.tuning import tiny

    info = LoadStateDictInfo(set(), set(), set(), [], {}, set())
    with contextlib.suppress(SkipParameters), log_conversion_errors("a.weight", info, (1, "a.weight")):
        raise error
    log_state_dict_report(
        tiny.model(300), "tiny/phi", ignore_mismatched_sizes=False, loading_info=info, logger=modeling_utils.logger
    )


@pytest.mark.torch
@pytest.mark.parametrize(
    ("cause", "kind", "words"),
    [
        ("OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.", errors.OutOfMemory, "instanceType"),
        ("AcceleratorError: CUDA error: uncorrectable ECC error", errors.NodeTrouble, "the node's GPU failed"),
        ("ValueError: a block is too small", errors.ModelUnusable, "model tiny/phi cannot be loaded: ValueError: a b"),
    ],
)
def test_what_fails_while_weights_are_quantised_is_told(cause, kind, words, caplog):
    import torch

    name, _, said = cause.partition(": ")
    caplog.set_level(logging.ERROR, "transformers")  # as TRANSFORMERS_VERBOSITY sets it
    with pytest.raises(errors.TuningError, match=words) as raised, model.explained("tiny/phi"):
        fail_to_convert(getattr(torch, name, ValueError)(said))
    assert type(raised.value) is kind
    assert said in caplog.text  # with its traceback, for those who look into the log


@pytest.mark.torch
def test_other_errors_of_loading_keep_their_words():
    with pytest.raises(RuntimeError, match="unspecified launch failure"), model.explained("tiny/phi"):
        raise RuntimeError("CUDA error: unspecified launch failure")


def test_a_gpu_that_the_image_has_no_kernels_for_is_named_before_anything_is_fetched():
    model.require_kernels(PINNED, "NVIDIA L4", (8, 9))
    with pytest.raises(errors.UnsupportedGPU, match=r"Tesla V100, capability 7\.0; this image has kernels for 7\.5, 8"):
        model.require_kernels(PINNED, "Tesla V100", (7, 0))


@pytest.mark.torch
def test_a_node_without_a_gpu_that_torch_can_use_is_broken_where_one_is_required(tuning, config, registry, auth):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    done = tuning(config(f"{registry.host}/team/gpu:1", require_gpu=True), "--push-auth", str(auth))
    assert (done.code, done.left.reason, done.left.retryable) == (Exit.NODE_TROUBLE, "NodeTrouble", True)
    assert (
        f"torch {torch.__version__} (CUDA {torch.version.cuda or 'not built in'}) can use no GPU" in done.left.message
    )
