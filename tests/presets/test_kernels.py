"""Which GPUs and drivers a build of torch can use."""

import json
import subprocess
import sys

import pydantic
import pytest

import presets
from presets import kernels
from presets.kernels import PINNED, Kernels


def having(*capabilities):
    return Kernels(capabilities=capabilities, minimum_driver="525")


@pytest.mark.parametrize(
    ("has", "runs", "fails"),
    [
        pytest.param(("7.5",), ["7.5"], ["7.0", "8.0", "0.0"], id="no-other-major-version"),
        pytest.param(("8.0", "8.6"), ["8.0", "8.6", "8.7", "8.9"], ["9.0"], id="newer-of-the-same-major-version"),
        pytest.param(("8.6",), ["8.6", "8.9"], ["8.0"], id="none-that-is-older"),
        pytest.param(("9.0a",), ["9.0"], ["9.1", "10.0"], id="for-one-GPU-alone"),
        pytest.param(("10.0f",), ["10.0", "10.3"], ["11.0", "12.0"], id="for-a-family"),
        pytest.param(("9.0+PTX",), ["9.0", "10.0", "12.1"], ["8.9"], id="compiled-anew-for-whatever-is-newer"),
        pytest.param(("7.5", "12.0+PTX"), ["7.5", "12.1", "13.0"], ["8.0", "10.0"], id="PTX-of-the-newest"),
    ],
)
def test_gpus_run_what_cuda_lets_them_run(has, runs, fails):
    def able(capability):
        major, minor = map(int, capability.split("."))
        return having(*has).run_on((major, minor))

    assert [capability for capability in [*runs, *fails] if able(capability)] == runs


def test_torch_s_words_are_understood():
    found = Kernels.of(["sm_75", "sm_90a", "sm_100f", "sm_120", "compute_120"], "12.8")
    assert found.capabilities == ("7.5", "9.0a", "10.0f", "12.0+PTX")
    assert found.minimum_driver == "525.60.13", "any release of a major version runs with the driver of its first"
    assert Kernels.of(["compute_90a"], "12.8").capabilities == ("9.0a",), "PTX of one GPU is for that one"
    assert found.lowest == (7, 5)


@pytest.mark.parametrize(("flags", "cuda"), [([], "none"), ([], "13.0"), (["sm_75"], "99.1"), (["gfx90a"], "12.8")])
def test_a_torch_of_which_nothing_is_known_is_no_guess(flags, cuda):
    with pytest.raises(ValueError, match=rf"torch for CUDA {cuda} has kernels for .*; take another torch"):
        Kernels.of(flags, cuda)


def test_drivers_are_compared_by_their_numbers():
    assert PINNED.drive_with("580.65.06")
    assert PINNED.drive_with("1000.1")
    assert PINNED.drive_with("580"), "nothing speaks against it"
    assert not PINNED.drive_with("580.9.1")
    assert not PINNED.drive_with("535.183.01")


@pytest.mark.parametrize(
    "setting", [{"capabilities": []}, {"capabilities": ["sm_75"]}, {"minimumDriver": "new"}, {"ptx": True}]
)
def test_a_setting_that_says_something_else_is_refused(setting):
    with pytest.raises(pydantic.ValidationError):
        Kernels.model_validate({"capabilities": ["7.5"], "minimumDriver": "525"} | setting)


def test_every_cuda_gpu_that_is_sold_runs_the_pinned_ones_but_those_older_than_the_t4():
    cards = {size.compute for size in presets.sizes().values() if size.compute > kernels.NO_CUDA}
    assert {card for card in cards if not PINNED.run_on(card)} == {card for card in cards if card < (7, 5)}
    assert len(cards) > 8


@pytest.mark.torch
def test_what_is_pinned_is_what_the_pinned_torch_has():
    """The command that `make images` runs in the image."""
    said = subprocess.run(
        [sys.executable, "-m", "tuning.training.kernels"], capture_output=True, text=True, check=True
    ).stdout
    assert Kernels.model_validate(json.loads(said)) == PINNED
