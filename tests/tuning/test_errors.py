import errno
import json
import os
import re
from pathlib import Path

import pytest

from artifacts.weights import errors as weights
from tests import terminations
from tuning import errors
from tuning.config import RETRYABLE, Exit, Failure


def kinds(root=errors.TuningError):
    return [root, *(kind for child in root.__subclasses__() for kind in kinds(child))]


def test_the_drawn_tree_is_the_tree():
    drawn = re.findall(r"^ {4}([| `-]*)(\w+) +(\d*)", errors.__doc__, re.MULTILINE)
    assert [name for _, name, _ in drawn] == [kind.__name__ for kind in kinds()]
    for _, name, code in drawn:
        if code:
            assert getattr(errors, name).code == int(code)


def test_every_code_but_usage_has_an_error():
    assert {kind.code for kind in kinds()} == set(Exit) - {Exit.DONE, Exit.USAGE}


@pytest.mark.parametrize("kind", [kind for kind in kinds() if kind is not errors.ModelFiles])
def test_a_failure_says_reason_text_and_whether_to_retry(kind):
    failure = kind("what, and the way out").failure()
    assert failure.reason == ("Unexpected" if kind is errors.TuningError else kind.__name__)
    assert failure.message == "what, and the way out"
    assert failure.retryable == (kind.code in RETRYABLE)


@pytest.mark.parametrize("kind", [kind for kind in kinds() if kind is not errors.ModelFiles])
def test_a_failure_of_another_process_is_the_same_error_here(kind):
    again = errors.again(kind("what, and the way out").failure())
    assert (type(again), str(again)) == (kind, "what, and the way out")


@pytest.mark.parametrize("cause", weights.WeightsError.__subclasses__())
def test_what_is_wrong_with_the_models_files_keeps_its_own_words(cause):
    error = errors.ModelFiles(cause("what, and the way out"))
    expected = Failure(reason=cause.__name__, message="what, and the way out", retryable=cause.retryable)
    assert (error.failure(), error.code) == (expected, cause.code)


@pytest.mark.parametrize("text", ["x" * 9000, "é" * 9000, "\N{GRINNING FACE}" * 9000, '"' * 9000, "\0" * 9000])
def test_a_failure_fits_a_termination_message(text):
    left = json.dumps(errors.TuningError(text).failure().model_dump())
    assert len(left) < 4096
    assert terminations.of_tuning(left).message.startswith(text[:200])


def disk_full():
    Path("/dev/full").write_text("x")


def out_of_memory():
    like_torchs = type("OutOfMemoryError", (RuntimeError,), {})
    raise like_torchs("CUDA out of memory. Tried to allocate 2.00 GiB")


def gpu_lost():
    raise RuntimeError("CUDA error: uncorrectable ECC error encountered\nCompile with `TORCH_USE_CUDA_DSA`")


def old_gpu():
    raise RuntimeError("CUDA error: no kernel image is available for execution on the device")


def main_memory():
    raise MemoryError


def torch_main_memory():
    import torch

    torch.empty(1 << 60, dtype=torch.uint8)


def no_process():
    raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))


def bug():
    return {}["x"]


def known():
    raise errors.DataInvalid("as it is")


@pytest.mark.parametrize(
    ("trouble", "kind", "words"),
    [
        (disk_full, errors.NodeTrouble, "No space left on device"),
        (out_of_memory, errors.OutOfMemory, "resource.instanceType"),
        (gpu_lost, errors.NodeTrouble, "uncorrectable ECC"),
        (old_gpu, errors.UnsupportedGPU, "no kernels for the node's GPU"),
        (main_memory, errors.OutOfMemory, "main memory"),
        pytest.param(torch_main_memory, errors.OutOfMemory, "main memory (RuntimeError", marks=pytest.mark.torch),
        (no_process, errors.OutOfMemory, "main memory (OSError: [Errno 12] Cannot allocate memory)"),
        (bug, errors.TuningError, "KeyError: 'x'"),
        (known, errors.DataInvalid, "as it is"),
    ],
)
def test_foreign_errors_get_our_words(trouble, kind, words):
    with pytest.raises(Exception) as raised:
        trouble()
    explained = errors.explain(raised.value)
    assert type(explained) is kind
    assert words in str(explained)
    assert "\n" not in str(explained)


def test_a_missing_file_is_no_disk_trouble():
    assert type(errors.explain(FileNotFoundError(errno.ENOENT, "none", "x"))) is errors.TuningError


@pytest.mark.parametrize("left", ["", "Killed", "[]", "3", '{"reason": 3}', '{"adapter": "a", "x": 1}'])
def test_what_is_no_termination_message_is_none(left):
    assert terminations.of_tuning(left) is None


def test_a_failure_reads_back():
    failure = Failure(reason="DataInvalid", message="m", retryable=False)
    assert terminations.of_tuning(failure.model_dump_json()) == failure
